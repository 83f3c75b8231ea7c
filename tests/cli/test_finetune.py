from __future__ import annotations

import csv
import dataclasses
import os
import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from squeezebert.cli import build_parser, main
from squeezebert.training.losses import ClassificationLoss
from squeezebert.training.settings import FinetuneSettings


@pytest.fixture
def table(tmp_path: Path) -> Path:
    with (tmp_path / "train.csv").open("w", newline="") as file:
        rows = [(f"{'good' if number % 2 else 'bad'} film {number}", ("no", "yes")[number % 2]) for number in range(40)]
        csv.writer(file).writerows([("text", "label"), *rows])
    return tmp_path / "train.csv"


def _flags(table: Path, *more: str) -> list[str]:
    output = str(table.parent / "out")
    start = ["finetune", "--train", str(table), "--model", "tiny", "--output", output]
    return [*start, "--epochs", "1", "--device", "cpu", *more]


def test_a_table_becomes_a_model(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_flags(table, "--seeds", "1", "2")) == 0
    said = capsys.readouterr()
    assert "mean of 2 seeds: held_out accuracy" in said.out
    assert "the other 4 rows" in said.err
    assert (table.parent / "out" / "model.safetensors").exists()


def test_a_task_of_glue_becomes_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "glue" / "RTE"
    folder.mkdir(parents=True)
    for name in ("train", "dev"):
        rows = "".join(f"{n}\ta {n}\tb {n}\t{'' if n % 2 else 'not_'}entailment\n" for n in range(8))
        (folder / f"{name}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + rows)
    flags = [
        "--task",
        "RTE",
        "--data-dir",
        str(tmp_path / "glue"),
        "--model",
        "tiny",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ]
    assert main(["finetune", *flags, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "seed 42: validation accuracy" in said.out
    # A part of a data set says so.
    assert "8 of 2,490 rows" in said.err
    assert "8 of 2,490 rows" in (tmp_path / "out" / "README.md").read_text()


def test_an_interrupted_run_says_how_to_go_on(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = ClassificationLoss.__call__

    def interrupt(self: ClassificationLoss, *args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return loss(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationLoss, "__call__", interrupt)
        assert main(_flags(table)) == 130
    said = capsys.readouterr().err
    assert "stopped after step 1, saved in" in said
    assert "adding --resume to: squeezebert finetune" in said
    assert main(_flags(table)) == 2
    assert main(_flags(table, "--resume")) == 0
    assert main(_flags(table, "--resume")) == 0
    assert "this run is finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train", "none.csv"], "none.csv: no such file"),
        (["--dev", "none.csv"], "none.csv: no such file"),
        (["--text-column", "review"], "no column 'review'"),
        (["--label-column", "stars"], "no column 'stars'"),
        (["--pair-column", "second"], "no column 'second'"),
        (["--regression"], "not a finite number"),
        (["--task", "sst2"], "not both"),
        (["--data-dir", "."], "data_dir goes with a GLUE task"),
        (["--model", "nowhere"], "nowhere: no such folder"),
        (["--vocab", "none.txt"], "none.txt"),
        (["--learning-rate", "-1"], "learning_rate must be above 0"),
        (["--dropout", "1"], "dropout must be"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--max-length", "513"], "max_length 513 is more than the 512"),
        (["--seeds", "1", "1"], "seeds must be different"),
        (["--learning-rate", "nan"], "learning_rate must be"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    table: Path, flags: Sequence[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_flags(table, *flags)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("squeezebert: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert not (table.parent / "out").exists()


def test_one_class_only(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text("text,label\na,x\nb,x\nc,x\n")
    assert main(_flags(table)) == 2
    assert "every row has the label 'x'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    # The superuser, whom permissions do not stop, may be running this.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(_flags(table)) == 2
    assert "cannot be written; choose another output folder" in capsys.readouterr().err


def test_help_tells_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        build_parser("finetune").parse_args(["finetune", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Passes over the training data (3)" in said
    assert "Learning rate at its peak (3e-05)" in said
    assert "biases and norms never decay (0.0)" in said


def test_the_commands_of_the_docs_are_understood() -> None:
    docs = Path(__file__).parents[2] / "docs" / "finetuning.md"
    commands = re.findall(r"^    .*?(?:squeezebert )(finetune .*)$", docs.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        parsed = vars(build_parser("finetune").parse_args(shlex.split(command)))
        names = [field.name for field in dataclasses.fields(FinetuneSettings)]
        FinetuneSettings(**{name: parsed[name] for name in names})
    example = next(command for command in commands if "mrpc" in command)
    for flag in ("squeezebert/squeezebert-mnli-headless", "--epochs 10", "--learning-rate 3e-5", "--batch-size 16"):
        assert flag in example
