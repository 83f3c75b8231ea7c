"""Everything a user may get wrong: one clear line, exit code 2, no traceback, and nothing lost.

Each case is a command line and the words its message must hold: the file, the row or field, and a remedy. Missing and
malformed files, unknown labels, damaged weights and full disks, each through the same front door as a user's.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from squeezebert.cli import main

pytest.importorskip("torch")

GOOD = "text,label\n" + "".join(f'"it was {word}, row {row}",{label}\n' for row in range(8) for word, label in
                                (("good", "positive"), ("bad", "negative")))  # fmt: skip


@pytest.fixture(scope="session")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finetuned model, made by the command line."""
    folder = tmp_path_factory.mktemp("finetuned")
    (folder / "train.csv").write_text(GOOD)
    command = ["finetune", "--train", f"{folder}/train.csv", "--dev", f"{folder}/train.csv", "--model", "tiny"]
    assert main([*command, "--epochs", "1", "--output", f"{folder}/model"]) == 0
    return folder / "model"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finetuned: Path) -> Path:
    """A working folder with a good table and a good model."""
    monkeypatch.chdir(tmp_path)
    Path("good.csv").write_text(GOOD)
    shutil.copytree(finetuned, "model", ignore=shutil.ignore_patterns("seed-*"))
    return tmp_path


def write(name: str, content: str | bytes) -> Callable[[], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda: Path(name).write_bytes(data) and None


def edit_config(**changes: object) -> Callable[[], None]:
    def change() -> None:
        values = json.loads(Path("model/config.json").read_text())
        Path("model/config.json").write_text(json.dumps(values | changes))

    return change


def truncate(name: str, keep: int) -> Callable[[], None]:
    return lambda: Path(name).write_bytes(Path(name).read_bytes()[:keep]) and None


def other_vocabulary() -> None:
    Path("model/tokenizer.json").unlink()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(9999))]
    Path("model/vocab.txt").write_text("\n".join(tokens))


def nothing() -> None:
    """No preparation."""


TRAIN = "finetune --model tiny --output out --epochs 1"
SST2 = "finetune --task sst2 --model tiny --output out"
CLASSIFY = "classify --model model"
GLUE_HEADER = "sentence\tlabel\n"


def glue(train: str, dev: str = "a fine film\t1\n") -> Callable[[], None]:
    def make() -> None:
        Path("glue/SST-2").mkdir(parents=True)
        Path("glue/SST-2/train.tsv").write_text(GLUE_HEADER + train)
        Path("glue/SST-2/dev.tsv").write_text(GLUE_HEADER + dev)

    return make


CASES: dict[str, tuple[Callable[[], None], str, tuple[str, ...]]] = {
    # --- tables
    "missing table": (nothing, f"{TRAIN} --train none.csv", ("none.csv",)),
    "folder for a table": (lambda: Path("dir.csv").mkdir(), f"{TRAIN} --train dir.csv", ("dir.csv",)),
    "empty table": (write("t.csv", ""), f"{TRAIN} --train t.csv", ("t.csv", "empty")),
    "header only": (write("t.csv", "text,label\n"), f"{TRAIN} --train t.csv", ("t.csv",)),
    "unknown kind of file": (write("t.xlsx", "PK"), f"{TRAIN} --train t.xlsx", ("t.xlsx", ".csv")),
    "binary table": (write("t.csv", bytes(range(256)) * 9), f"{TRAIN} --train t.csv", ("t.csv",)),
    "not UTF-8": (write("t.csv", b"text,label\ncaf\xe9,a\n"), f"{TRAIN} --train t.csv", ("t.csv:2", "UTF-8")),
    "missing text column": (nothing, f"{TRAIN} --train good.csv --text-column body", ("good.csv", "body", "text")),
    "missing label column": (nothing, f"{TRAIN} --train good.csv --label-column stars", ("good.csv", "stars", "label")),
    "missing pair column": (nothing, f"{TRAIN} --train good.csv --pair-column second", ("good.csv", "second")),
    "too few fields": (write("t.csv", "text,label\na,1\nb\n"), f"{TRAIN} --train t.csv", ("t.csv:3",)),
    "too many fields": (write("t.csv", "text,label\na,1\nb,0,x\n"), f"{TRAIN} --train t.csv", ("t.csv:3",)),
    "unclosed quote": (write("t.csv", 'text,label\na,1\n"b,0\n'), f"{TRAIN} --train t.csv", ("t.csv",)),
    "empty text": (write("t.csv", "text,label\na,1\n,0\n"), f"{TRAIN} --train t.csv", ("t.csv:3", "text")),
    "missing label": (write("t.csv", "text,label\na,1\nb,\n"), f"{TRAIN} --train t.csv", ("t.csv:3", "label")),
    "one class": (write("t.csv", "text,label\na,1\nb,1\n"), f"{TRAIN} --train t.csv", ("t.csv", "1")),
    "a class a row": (
        write("t.csv", "text,label\n" + "".join(f"row,{n}.5\n" for n in range(9))),
        f"{TRAIN} --train t.csv", ("t.csv", "--regression"),
    ),
    "NaN target": (
        write("t.csv", "text,label\na,1.5\nb,nan\n"), f"{TRAIN} --train t.csv --regression", ("t.csv:3", "nan"),
    ),
    "infinite target": (
        write("t.csv", "text,label\na,1.5\nb,-inf\n"), f"{TRAIN} --train t.csv --regression", ("t.csv:3", "inf"),
    ),
    "word for a number": (
        write("t.csv", "text,label\na,1.5\nb,high\n"), f"{TRAIN} --train t.csv --regression", ("t.csv:3", "high"),
    ),
    "label unknown to training": (
        write("t.csv", "text,label\na,positive\nb,neutral\n"), f"{TRAIN} --train good.csv --dev t.csv",
        ("t.csv:3", "neutral", "positive"),
    ),
    "JSON line that is none": (
        write("t.jsonl", '{"text": "a", "label": 1}\n{"text": \n'), f"{TRAIN} --train t.jsonl", ("t.jsonl:2",),
    ),
    "JSON line that is no object": (write("t.jsonl", "[1, 2]\n"), f"{TRAIN} --train t.jsonl", ("t.jsonl:1",)),
    "text that is a number": (
        write("t.jsonl", '{"text": 5, "label": 1}\n'), f"{TRAIN} --train t.jsonl", ("t.jsonl:1",),
    ),
    "parquet that is none": (write("t.parquet", "text"), f"{TRAIN} --train t.parquet", ("t.parquet",)),
    # --- GLUE
    "unknown task": (nothing, "finetune --task sst3 --model tiny --output out", ("sst3", "sst2")),
    "missing GLUE folder": (nothing, f"{SST2} --data-dir none", ("none", "glue download")),
    "GLUE label unknown": (
        glue("good\t1\nbad\t7\n"), f"{SST2} --data-dir glue", ("train.tsv:3", "7"),
    ),
    "GLUE row cut": (
        glue("good\t1\nbad\n"), f"{SST2} --data-dir glue", ("train.tsv:3",),
    ),
    "task and table": (nothing, f"{TRAIN} --task sst2 --train good.csv", ("task", "train")),
    "neither task nor table": (nothing, TRAIN, ("task", "train")),
    # --- settings
    "no epochs": (nothing, "finetune --train good.csv --model tiny --output out --epochs 0", ("epochs",)),
    "negative rate": (nothing, f"{TRAIN} --train good.csv --learning-rate -1", ("learning_rate",)),
    "dropout of one": (nothing, f"{TRAIN} --train good.csv --dropout 1", ("dropout",)),
    "seeds twice": (nothing, f"{TRAIN} --train good.csv --seeds 1 1", ("seeds",)),
    "too long": (nothing, f"{TRAIN} --train good.csv --max-length 9999", ("max_length", "512")),
    "no GPU here": (nothing, f"{TRAIN} --train good.csv --device cuda", ("cuda",)),
    "targets whose squares overflow": (
        write("t.csv", "text,label\n" + "a,1e30\nb,1\n" * 9),
        f"{TRAIN} --train t.csv --regression", ("t.csv:2", "1e30", "1e18"),
    ),
    # --- models
    "unknown model": (nothing, "finetune --train good.csv --model huge --output out", ("huge", "base")),
    "not a model": (lambda: Path("empty").mkdir(), "classify --model empty hello", ("empty", "config.json")),
    "file for a model": (nothing, "classify --model good.csv hello", ("good.csv",)),
    "size name to classify": (nothing, "classify --model tiny hello", ("tiny",)),
    "truncated weights": (truncate("model/model.safetensors", 5000), f"{CLASSIFY} hello", ("model.safetensors",)),
    "empty weights": (write("model/model.safetensors", ""), f"{CLASSIFY} hello", ("model.safetensors",)),
    "weights gone": (lambda: Path("model/model.safetensors").unlink(), f"{CLASSIFY} hello", ("model",)),
    "config not JSON": (write("model/config.json", "{"), f"{CLASSIFY} hello", ("config.json",)),
    "another architecture": (edit_config(model_type="gpt2"), f"{CLASSIFY} hello", ("config.json", "gpt2")),
    "wrong width": (edit_config(hidden_size=128), f"{CLASSIFY} hello", ("model",)),
    "impossible groups": (edit_config(q_groups=7), f"{CLASSIFY} hello", ("config.json", "q_groups")),
    "wrong vocabulary": (
        other_vocabulary, f"{CLASSIFY} hello", ("vocabulary",),
    ),
    "damaged vocabulary": (write("model/tokenizer.json", "{}"), f"{CLASSIFY} hello", ("tokenizer.json",)),
    # --- classify and evaluate
    "missing input": (nothing, f"{CLASSIFY} --input none.csv", ("none.csv",)),
    "input without the column": (nothing, f"{CLASSIFY} --input good.csv --text-column body", ("body",)),
    "output of unknown kind": (nothing, f"{CLASSIFY} --input good.csv --output o.xml", ("o.xml", ".jsonl")),
    "output in no folder": (
        write("file", "x"), f"{CLASSIFY} --input good.csv --output file/o.jsonl", ("file",),
    ),
    "labels not the model's": (
        write("t.csv", "text,label\na,up\nb,down\n"), "evaluate --model model --input t.csv", ("up", "positive"),
    ),
    "unlabelled split": (
        glue("good\t1\n"), "evaluate --model model --task sst2 --data-dir glue --split test", ("test",),
    ),
    "conversion of nothing": (nothing, "model convert none out", ("none",)),
    "information on nothing": (nothing, "model info none", ("none",)),
}  # fmt: skip


@pytest.mark.parametrize(("prepare", "command", "words"), CASES.values(), ids=CASES)
def test_one_clear_line_and_exit_code_2(
    prepare: Callable[[], None], command: str, words: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare()
    capsys.readouterr()
    status = main(command.split())
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("squeezebert: ")]
    assert status == 2, captured.err
    assert len(errors) == 1, captured.err
    assert captured.err.splitlines()[-1] == errors[0]
    assert "Traceback" not in captured.err + captured.out
    for word in words:
        assert word in errors[0]
    assert captured.out == ""


def squeezebert(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "squeezebert", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload, no-any-return]


def one_line(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    errors = [line for line in process.stderr.splitlines() if line.startswith("squeezebert: ")]
    assert len(errors) == 1, process.stderr
    return errors[0]


def test_a_full_disk_ends_in_one_line_and_keeps_what_was_there(here: Path) -> None:
    """A limit on the size of files stands for the full disk: writes beyond it fail just so."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    before = Path("model/model.safetensors").read_bytes()
    process = squeezebert("model", "convert", "model", "model2", preexec_fn=limit)
    assert "model2" in one_line(process)
    assert not Path("model2").exists()
    assert Path("model/model.safetensors").read_bytes() == before
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


def test_predictions_made_before_a_bad_row_are_kept(here: Path) -> None:
    rows = ["text"] + [f"row {number}" for number in range(3000)]
    Path("rows.csv").write_bytes("\n".join(rows).encode() + b"\nbroken \xff\nlast\n")
    process = squeezebert("classify", "--model", "model", "--input", "rows.csv", "--output", "out.jsonl")
    message = one_line(process)
    assert "rows.csv:3002" in message
    assert not Path("out.jsonl").exists()
    assert "out.jsonl.partial" in message
    assert len(Path("out.jsonl.partial").read_text().splitlines()) > 0

    Path("rows.csv").write_text("\n".join([*rows, "mended", "last"]) + "\n")
    assert (
        squeezebert(
            "classify", "--model", "model", "--input", "rows.csv", "--output", "out.jsonl", "--resume"
        ).returncode
        == 0
    )
    resumed = Path("out.jsonl").read_text()
    assert squeezebert("classify", "--model", "model", "--input", "rows.csv", "--output", "again.jsonl").returncode == 0
    assert resumed == Path("again.jsonl").read_text()


def test_a_run_in_the_way_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in Path("model").iterdir() if path.is_file()}
    assert main(["finetune", "--train", "good.csv", "--model", "tiny", "--epochs", "1", "--output", "model"]) == 2
    assert "model" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in Path("model").iterdir() if path.is_file()}


def test_a_folder_that_cannot_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "--train", "good.csv", "--model", "tiny", "--epochs", "1", "--output", "/proc/out"]) == 2
    assert "squeezebert: /proc" in capsys.readouterr().err
