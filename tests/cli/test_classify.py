from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard

from squeezebert import checkpoint
from squeezebert.classifier import Classifier
from squeezebert.cli import classify, main

WORDS = ["a", "and", "dull", "film", "good", "great", "is", "it", "long", "moving", "not", "plot", "the", "very"]


def texts(n: int) -> list[str]:
    generator = random.Random(5)
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, 30))) for _ in range(n)]


def write_csv(path: Path, rows: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(rows)])
    return path


def start(*arguments: str | Path, **settings: Any) -> subprocess.Popen[Any]:
    command = [sys.executable, "-m", "squeezebert", "classify", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Make ``content`` the standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_arguments_give_a_line_each(classifier_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["good film", "", "dull\nand  long"]
    assert main(["classify", "--model", str(classifier_folder), *rows]) == 0
    predictions = Classifier.load(classifier_folder).predict(rows)
    expected = [
        f"{prediction.label:<8}  {prediction.score:.3f}  {text}"
        for prediction, text in zip(predictions, ["good film", "", "dull and long"], strict=True)
    ]
    assert capsys.readouterr().out.splitlines() == expected


def test_json_has_every_score(classifier_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--model", str(classifier_folder), "--json", "good film"]) == 0
    record = json.loads(capsys.readouterr().out)
    prediction = Classifier.load(classifier_folder).predict("good film")
    assert record == {
        "row": 1,
        "label": prediction.label,
        "score": round(prediction.score, 6),
        "scores": {label: round(score, 6) for label, score in prediction.scores.items()},
    }


def test_lines_of_standard_input(
    classifier_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, "\ufeffgood film\r\n\ndull plot".encode())
    assert main(["classify", "--model", str(classifier_folder)]) == 0
    read = capsys.readouterr().out
    assert main(["classify", "--model", str(classifier_folder), "good film", "", "dull plot"]) == 0
    assert read == capsys.readouterr().out


def test_regression_and_several_labels(
    save_classifier: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_classifier(("score",), problem_type="regression")
    assert main(["classify", "--model", str(folder), "good film"]) == 0
    assert capsys.readouterr().out == f"{Classifier.load(folder).predict('good film').label:9.4f}  good film\n"
    folder = save_classifier(("a", "b", "c", "d"), problem_type="multi_label_classification")
    rows = texts(20)
    assert main(["classify", "--model", str(folder), *rows]) == 0
    lines = capsys.readouterr().out.splitlines()
    chosen = [prediction.label for prediction in Classifier.load(folder).predict(rows)]
    assert len(set(chosen)) > 1
    assert [line.split("  ")[0] for line in lines] == [", ".join(label) or "-" for label in chosen]


@pytest.mark.parametrize(
    "name", ["in.csv", "in.TSV", "in.jsonl", "in.jsonl.gz", "in.TXT", "in.txt.gz", "in.txt.zst", "in.PARQUET"]
)
def test_every_format_keeps_the_order(classifier_folder: Path, tmp_path: Path, name: str) -> None:
    rows = ["", *texts(70), ""]  # a line of a table with one column may be empty
    path = tmp_path / name
    name = name.lower()
    if name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": rows}), path)
    elif name.endswith("csv"):
        write_csv(path, rows)
    else:
        make = {".tsv": str, ".jsonl": lambda row: json.dumps({"text": row}), ".txt": str}[Path(name).suffixes[0]]
        content = "".join(f"{line}\n" for line in ["text"] * name.endswith("tsv") + [make(row) for row in rows])
        pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(Path(name).suffix, bytes)
        path.write_bytes(pack(content.encode()))
    output = tmp_path / "out.JSONL"
    command = ["classify", "--model", str(classifier_folder), "--input", str(path), "--output", str(output)]
    assert main([*command, "--batch-size", "8"]) == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    expected = Classifier.load(classifier_folder, batch_size=8).predict(rows)
    assert [(record["row"], record["label"], record["score"]) for record in records] == [
        (i, prediction.label, round(prediction.score, 6)) for i, prediction in enumerate(expected, start=1)
    ]
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "out.JSONL"}


def test_second_column(classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.tsv").write_text("premise\thypothesis\ngood film\tdull plot\n")
    command = ["classify", "--model", str(classifier_folder), "--input", str(tmp_path / "in.tsv")]
    assert main([*command, "--text-column", "premise", "--pair-column", "hypothesis"]) == 0
    prediction = Classifier.load(classifier_folder).predict("good film", "dull plot")
    assert capsys.readouterr().out == f"{prediction.label:<8}  {prediction.score:.3f}  good film | dull plot\n"


def test_bad_row_keeps_those_before_and_resume_ends_with_the_same_bytes(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = texts(2300)
    source, output = write_csv(tmp_path / "in.csv", rows), tmp_path / "out.csv"
    model = ["classify", "--model", str(classifier_folder), "--batch-size", "64"]
    assert main([*model, "--input", str(source), "--output", str(tmp_path / "whole.csv")]) == 0
    good = source.read_text()
    source.write_text(good.replace(f"2000,{rows[2000]}", f"2000,{rows[2000]},surplus"))
    capsys.readouterr()
    assert main([*model, "--input", str(source), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{source}:2002: 3 fields where the header has 2" in error
    assert f"; the first 2000 rows are in {output}.partial, and --resume goes on after row 1024" in error
    assert json.loads((tmp_path / "out.csv.partial.json").read_text())["rows"] == 1024
    assert (tmp_path / "out.csv.partial").read_text().count("\n") == 2001
    source.write_text(good)
    assert main([*model, "--input", str(source), "--output", str(output), "--resume"]) == 0
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert output.read_text().count("\n") == 2301


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_bytes(classifier_folder: Path, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", texts(6000))
    flags = ["--model", str(classifier_folder), "--input", str(source), "--threads", "1"]
    assert main(["classify", *flags, "--output", str(tmp_path / "whole.jsonl")]) == 0
    state = tmp_path / "out.jsonl.partial.json"
    process = start(*flags, "--output", tmp_path / "out.jsonl")
    while process.poll() is None and not (state.exists() and json.loads(state.read_text())["rows"]):
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL  # it was still at work
    assert main(["classify", *flags, "--output", str(tmp_path / "out.jsonl"), "--resume"]) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_interrupted_says_what_is_kept(
    classifier_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Any) -> None:
        self._rows += 1
        if self._rows == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("squeezebert.cli.progress.Progress.step", interrupted)
    source, output = write_csv(tmp_path / "in.csv", texts(10)), tmp_path / "out.csv"
    command = ["classify", "--model", str(classifier_folder), "--input", str(source), "--output", str(output)]
    assert main(command) == 130
    error = capsys.readouterr().err
    assert f"interrupted; the first 5 rows are in {output}.partial, and --resume makes them anew" in error
    assert json.loads((tmp_path / "out.csv.partial.json").read_text())["rows"] == 0
    assert main(command) == 2
    assert "rows of an interrupted run; continue it with --resume" in capsys.readouterr().err
    monkeypatch.undo()
    assert main([*command, "--resume"]) == 0
    assert output.read_text().count("\n") == 11


def test_resume_with_a_changed_model_is_refused(
    save_classifier: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_classifier()
    rows = texts(3)
    source, output = write_csv(tmp_path / "in.csv", rows), tmp_path / "out.csv"
    source.write_text(source.read_text() + "3,a,b\n")
    command = ["classify", "--model", str(folder), "--input", str(source), "--output", str(output)]
    assert main(command) == 2
    os.utime(folder / "model.safetensors", (0, 0))
    capsys.readouterr()
    assert main([*command, "--resume"]) == 2
    assert "began with size and time of model.safetensors" in capsys.readouterr().err


def test_resume_with_a_shorter_input_is_refused(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = write_csv(tmp_path / "in.csv", texts(1030)), tmp_path / "out.csv"
    source.write_text(source.read_text() + "3,a,b\n")
    command = ["classify", "--model", str(classifier_folder), "--input", str(source), "--output", str(output)]
    assert main(command) == 2
    write_csv(source, texts(10))
    capsys.readouterr()
    assert main([*command, "--resume"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{source}: 10 rows, but {output}.partial holds 1024; give the same input, or remove" in error
    assert (tmp_path / "out.csv.partial").exists()


def test_resume_with_an_edited_input_is_refused(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = texts(1030)
    source, output = write_csv(tmp_path / "in.csv", rows), tmp_path / "out.csv"
    source.write_text(source.read_text() + "3,a,b\n")
    command = ["classify", "--model", str(classifier_folder), "--input", str(source), "--output", str(output)]
    assert main(command) == 2
    write_csv(source, ["another text", *rows[1:]])
    capsys.readouterr()
    assert main([*command, "--resume"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{source}: its first 1024 rows are not those of the interrupted run; " in error
    assert f"remove {output}.partial and out.csv.partial.json to begin anew" in error
    write_csv(source, rows)
    assert main([*command, "--resume"]) == 0
    assert output.read_text().count("\n") == 1031


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
def test_output_that_is_the_input_is_refused(
    classifier_folder: Path,
    tmp_path: Path,
    link: Callable[[Path, Path], None] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write_csv(tmp_path / "in.csv", texts(3))
    before = source.read_bytes()
    output = source if link is None else tmp_path / "out.csv"
    if link is not None:
        link(source, output)
    command = ["classify", "--model", str(classifier_folder), "--input", str(source), "--output", str(output)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error == f"squeezebert: {output}: this is the input, which would be lost; choose another --output\n"
    assert source.read_bytes() == before


def save_with(folder: Path, model: Path, **extra: Any) -> list[str]:
    """Save the model again with ``extra``, and give the command that runs it."""
    loaded = checkpoint.load(model)
    checkpoint.save(loaded.model, folder, tokenizer=loaded.tokenizer, extra=extra)
    return ["classify", "--model", str(folder)]


def test_pair_on_the_command_line(classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = save_with(tmp_path / "model", classifier_folder, pair=True)
    assert main([*command, "good film", "--pair", "dull plot"]) == 0
    prediction = Classifier.load(classifier_folder).predict("good film", "dull plot")
    assert capsys.readouterr().out == f"{prediction.label:<8}  {prediction.score:.3f}  good film | dull plot\n"


@pytest.mark.parametrize(
    ("pair", "flags", "message"),
    [
        (True, ["good film"], "model: a model of pairs of texts; give the second text with --pair"),
        (True, ["--input", "in.csv"], "model: a model of pairs of texts; give a table, and its column with"),
        (True, [], "model: a model of pairs of texts; give a table, and its column with --pair-column"),
        (False, ["good film", "--pair", "b"], "model: a model of single texts; leave out --pair"),
        (False, ["--input", "in.csv", "--pair-column", "id"], "model of single texts; leave out --pair-column"),
    ],
)
def test_single_texts_and_pairs_are_not_mixed_up(
    classifier_folder: Path,
    tmp_path: Path,
    pair: bool,
    flags: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    feed(monkeypatch, b"good film\n")
    write_csv(Path("in.csv"), texts(3))
    command = save_with(tmp_path / "model", classifier_folder, pair=pair)
    assert main([*command, *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "{folder}/none.csv"], "none.csv: no such file"),
        (["--input", "{folder}/in.csv", "good film"], "both as arguments and by --input"),
        (["--input", "{folder}/in.csv", "--text-column", "review"], "no column 'review'; there are 'id', 'text'"),
        (["--input", "{folder}/in.csv", "--pair-column", "b"], "no column 'b'"),
        (["--input", "{folder}/in.xlsx"], "tell the format"),
        (["--input", "{folder}"], "{folder}: "),
        (["--input", "{folder}/empty.csv"], "empty.csv: the file is empty"),
        (["--input", "{folder}/header.csv"], "header.csv: there are no rows"),
        (["--input", "{folder}/binary.txt"], "binary.txt:2: byte 3 of the line (0xff) is not UTF-8"),
        (["--input", "{folder}/binary.txt", "--pair-column", "b"], "a file of lines has no columns"),
        (["--pair-column", "b", "good film"], "--pair-column names a column of a file"),
        (["--pair", "b"], "--pair is the second text to one TEXT; for more pairs use --input and --pair-column"),
        (["--pair", "b", "good film", "dull plot"], "--pair is the second text to one TEXT"),
        (["--pair", "b", "good film", "--pair-column", "b"], "--pair is the second text to one TEXT"),
        (["--resume", "good film"], "--resume goes on with a file, so it needs --output"),
        (["--output", "{folder}/out.xlsx", "good film"], "out.xlsx: predictions are written to .jsonl, .csv, .tsv"),
        (["--output", "{folder}/in.csv/out.csv", "good film"], "in.csv"),
        (["--batch-size", "0", "good film"], "batch size must be at least 1"),
        (["--max-length", "513", "good film"], "max length must lie between 5 and the model's 512"),
        (["--device", "toaster", "good film"], "device 'toaster' cannot be used here"),
        (["--threads", "0", "good film"], "threads must be at least 1"),
        (["good \udcff film"], "lone surrogate"),
        (["--model", "tiny", "good film"], "tiny: a size name stands for random weights"),
        (["--model", "{folder}/none", "good film"], "none: no such folder"),
        (["--model", "{folder}", "good film"], "config.json"),
    ],
)
def test_bad_input_is_one_line(
    classifier_folder: Path, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "in.csv", texts(3))
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("id,text\n")
    (tmp_path / "binary.txt").write_bytes(b"good\nab\xff\n")
    command = [
        "classify",
        "--model",
        str(classifier_folder),
        *(flag.replace("{folder}", str(tmp_path)) for flag in flags),
    ]
    before = {file.name for file in tmp_path.iterdir()}
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message.replace("{folder}", str(tmp_path)) in captured.err
    assert {file.name for file in tmp_path.iterdir()} == before


def test_standard_input_that_is_not_text_names_the_line(
    classifier_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, b"good film\nab\xff\n")
    assert main(["classify", "--model", str(classifier_folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out.endswith("  good film\n")  # what came before is answered
    assert captured.err.startswith("squeezebert: standard input:2: byte 3 of the line (0xff) is not UTF-8")


def test_typed_lines_are_answered_one_by_one(
    classifier_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    def typed() -> Iterator[bytes]:
        for text in ("good film", "dull plot", "great"):
            yield f"{text}\n".encode()
            shown.append(capsys.readouterr().out)

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=typed(), isatty=lambda: True))
    assert main(["classify", "--model", str(classifier_folder)]) == 0
    assert [line.split()[-1] for line in shown] == ["film", "plot", "great"]


def test_terminal_that_cannot_show_a_text(classifier_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert main(["classify", "--model", str(classifier_folder), "caf\u00e9"]) == 0
    stdout.seek(0)
    assert stdout.read().endswith("  caf\\xe9\n")


def test_no_standard_input_is_no_output(
    classifier_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, b"")
    assert main(["classify", "--model", str(classifier_folder)]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_reader_that_goes_away_is_no_error(classifier_folder: Path, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", texts(3000))
    process = start("--model", classifier_folder, "--input", source, "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["row"] == 1
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_rows_are_estimated_for_the_time_left(tmp_path: Path) -> None:
    rows = texts(20_000)
    estimate = classify._estimate_rows(write_csv(tmp_path / "in.csv", rows))
    assert (tmp_path / "in.csv").stat().st_size > 1 << 20
    assert estimate == pytest.approx(20_001, rel=0.02)
    for packed in ("in.csv.gz", "in.txt.ZST"):
        assert classify._estimate_rows(tmp_path / packed) is None
    assert classify._estimate_rows(None) is None


def test_no_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as where whoever starts the program has closed it
    assert main(["classify"]) == 2
    assert "there is no standard input to read texts from" in capsys.readouterr().err


def test_lack_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(classify, "load_predictor", fail)
    assert main(["classify", "good film"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "squeezebert: not enough memory; end other programs, or take a smaller model or --batch-size"
    ]
