from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from squeezebert import checkpoint
from squeezebert.cli import main

NLI = ("contradiction", "entailment", "neutral")


@pytest.fixture
def sst2(tmp_path: Path) -> Path:
    """A small GLUE folder: SST-2 with 40 rows of dev data, and its test split."""
    folder = tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)
    words = ["good film", "dull plot", "great", "too long", "fine and moving"]
    rows = [f"{words[i % 5]} {'very ' * (i % 7)}\t{i % 2}\n" for i in range(40)]
    (folder / "dev.tsv").write_text("sentence\tlabel\n" + "".join(rows))
    (folder / "test.tsv").write_text("index\tsentence\n0\tgood film\n")
    return tmp_path / "glue"


def test_glue_equals_scikit_learn_on_what_was_saved(
    classifier_folder: Path, sst2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scores"
    command = ["evaluate", "--model", str(classifier_folder), "--task", "SST-2", "--data-dir", str(sst2)]
    assert main([*command, "--output", str(output)]) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    metrics = json.loads((output / "metrics.json").read_text())
    accuracy = sklearn.metrics.accuracy_score(
        [line["label"] for line in lines], [metrics["labels"][np.argmax(line["logits"])] for line in lines]
    )
    assert 0 < accuracy < 1
    assert metrics["metrics"] == {"accuracy": accuracy}
    assert printed == ["sst2 validation: 40 of 872 rows (4.6 %)", f"accuracy  {accuracy:.4f}"]
    assert (metrics["rows"], metrics["official_rows"], metrics["complete"]) == (40, 872, False)
    assert [line["index"] for line in lines] == list(range(40))


def test_labels_in_another_order_give_the_same_score(
    save_classifier: Callable[..., Path], sst2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for labels in (("negative", "positive"), ("positive", "negative")):
        folder = save_classifier(labels)
        assert main(["evaluate", "--model", str(folder), "--task", "sst2", "--data-dir", str(sst2)]) == 0
        printed.append(float(capsys.readouterr().out.split()[-1]))
    # The same weights with the names swapped answer every text the other way.
    assert printed[0] == pytest.approx(1 - printed[1])
    assert printed[0] != printed[1]


def test_own_table(classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("review", "verdict"), ("good film, great", "positive"), ("too long", "negative"), ("dull", "negative")]
        )
    command = ["evaluate", "--model", str(classifier_folder), "--input", str(tmp_path / "reviews.csv")]
    assert main([*command, "--text-column", "review", "--label-column", "verdict"]) == 0
    title, *figures = capsys.readouterr().out.splitlines()
    assert title == "reviews.csv: 3 rows"
    assert [line.split()[0] for line in figures] == ["accuracy", "f1_macro"]


def test_regression_on_own_table(
    save_classifier: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_classifier(("score",), problem_type="regression")
    (tmp_path / "t.tsv").write_text("text\tlabel\ngood\t1\ndull\t2\ntoo long\t3.5\n")
    assert main(["evaluate", "--model", str(folder), "--input", str(tmp_path / "t.tsv")]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == ["pearson", "spearman", "mean_squared_error"]


@pytest.mark.parametrize(
    ("pair", "flags", "message"),
    [
        (True, [], "model: a model of pairs of texts; name the second column with --pair-column"),
        (False, ["--pair-column", "label"], "model: a model of single texts; leave out --pair-column"),
    ],
)
def test_single_texts_and_pairs_are_not_mixed_up(
    classifier_folder: Path,
    tmp_path: Path,
    pair: bool,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "t.csv").write_text("text,label\ngood,positive\ndull,negative\n")
    loaded = checkpoint.load(classifier_folder)
    checkpoint.save(loaded.model, tmp_path / "model", tokenizer=loaded.tokenizer, extra={"pair": pair})
    command = ["evaluate", "--model", str(tmp_path / "model"), "--input", str(tmp_path / "t.csv")]
    assert main([*command, *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give either --task, for GLUE, or --input"),
        (["--task", "sst2", "--input", "x.csv"], "give either --task"),
        (["--task", "sst9"], "no GLUE task 'sst9'"),
        (
            ["--task", "sst2", "--data-dir", "{glue}", "--split", "test"],
            "labels; score on --split validation",
        ),
        (["--task", "ax", "--data-dir", "{glue}"], "no public labels; GLUE's server scores it"),
        (["--task", "sst2", "--data-dir", "{glue}", "--split", "dev"], "sst2 has no split 'dev'"),
        (["--task", "cola", "--data-dir", "{glue}"], "cola: no dev.tsv in"),
        (["--task", "sst2", "--text-column", "t"], "--text-column goes with --input"),
        (["--input", "x.csv", "--split", "test"], "--split goes with --task"),
        (["--input", "{glue}/none.csv"], "none.csv: no such file"),
        (["--input", "{glue}/SST-2/dev.tsv"], "no column 'text'; there are 'sentence', 'label'"),
        (["--input", "{glue}/SST-2/dev.tsv", "--text-column", "sentence"], "dev.tsv:2: label '0' is not one of"),
        (["--task", "sst2", "--data-dir", "{glue}", "--output", "{glue}/SST-2/dev.tsv"], "this is a file"),
    ],
)
def test_bad_input_is_one_line(
    classifier_folder: Path, sst2: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--model", str(classifier_folder), *(flag.format(glue=sst2) for flag in flags)]
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_model_of_other_labels_is_refused(
    save_classifier: Callable[..., Path], sst2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_classifier(NLI)
    assert main(["evaluate", "--model", str(folder), "--task", "sst2", "--data-dir", str(sst2)]) == 2
    error = capsys.readouterr().err
    assert "contradiction, entailment, neutral" in error
    assert "negative, positive" in error
