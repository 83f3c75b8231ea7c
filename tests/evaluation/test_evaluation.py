from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeezebert.data.examples import Example
from squeezebert.data.tasks import GLUE, Task
from squeezebert.errors import InputError
from squeezebert.evaluation.evaluate import evaluate, save

ORDERS = [
    ("contradiction", "entailment", "neutral"),
    ("entailment", "neutral", "contradiction"),
    ("NEUTRAL", "CONTRADICTION", "ENTAILMENT"),
]


def oracle(labels: tuple[str, ...]) -> Any:
    """A model that reads the answer, the name of a label, off the text."""

    def run(rows: Iterable[tuple[str, str | None]]) -> Iterator[Any]:
        for text, _ in rows:
            yield np.array([float(label.lower() == text) for label in labels], dtype=np.float32)

    return run


@pytest.mark.parametrize("labels", ORDERS)
def test_labels_are_matched_by_name(labels: tuple[str, ...]) -> None:
    task = GLUE["mnli"]
    examples = [Example(name, "", i) for i, name in enumerate(task.labels)] * 3
    evaluation = evaluate(task, examples, oracle(labels), kind="single_label", labels=labels)
    assert evaluation.scores == {"accuracy": 1.0}
    assert evaluation.logits[:3].tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("labels", [("A", "b", "a"), ("a", "A", "b")])
def test_case_counts_where_it_tells_labels_apart(labels: tuple[str, ...]) -> None:
    task = Task(
        name="t", kind="single_label", labels=("a", "A", "b"), metrics=("accuracy",), primary_metric="", pair=False
    )
    examples = [Example(name, None, i) for i, name in enumerate(task.labels)]

    def run(rows: Iterable[tuple[str, str | None]]) -> Iterator[Any]:
        for text, _ in rows:
            yield np.array([float(label == text) for label in labels], dtype=np.float32)

    evaluation = evaluate(task, examples, run, kind="single_label", labels=labels)
    assert evaluation.scores == {"accuracy": 1.0}
    assert evaluation.logits.tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("labels", [("a", "B", "b"), ("a", "A", "a"), ("a", "A", "B", "b")])
def test_labels_that_case_alone_would_match_twice_are_refused(labels: tuple[str, ...]) -> None:
    task = Task(
        name="t", kind="single_label", labels=("a", "A", "b"), metrics=("accuracy",), primary_metric="", pair=False
    )
    with pytest.raises(InputError, match="are not those of t"):
        evaluate(task, [Example("x", None, 0)], oracle(labels), kind="single_label", labels=labels)


def test_other_labels_are_refused_with_both_lists() -> None:
    labels = ("LABEL_0", "LABEL_1")
    with pytest.raises(InputError, match=r"LABEL_0, LABEL_1.*sst2 \(negative, positive\)"):
        evaluate(GLUE["sst2"], [Example("x", None, 0)], oracle(labels), kind="single_label", labels=labels)


def test_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="gives any number of labels for a text, but stsb asks for a value"):
        evaluate(GLUE["stsb"], [Example("x", "y", 1.0)], oracle(("a",)), kind="multi_label", labels=("a",))


def test_examples_without_labels_are_refused() -> None:
    examples = [Example("x", None, 0), Example("y")]
    with pytest.raises(InputError, match="1 of 2 examples have no label"):
        evaluate(GLUE["sst2"], examples, oracle(()), kind="single_label", labels=("negative", "positive"))


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(InputError, match="no labelled examples"):
        evaluate(GLUE["sst2"], [], oracle(()), kind="single_label", labels=("negative", "positive"))


def saved(task: Task, examples: list[Example], labels: tuple[str, ...], run: Any, folder: Path) -> Any:
    save(evaluate(task, examples, run, kind=task.kind, labels=labels), task, examples, folder, {"task": task.name})
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return json.loads((folder / "metrics.json").read_text()), [json.loads(line) for line in lines]


def test_saved_predictions_name_labels(tmp_path: Path) -> None:
    task = GLUE["sst2"]
    examples = [Example("positive", None, 1), Example("negative", None, 1)]
    # The model's labels stand the other way round; what is saved is in the task's order.
    metrics, lines = saved(task, examples, ("positive", "negative"), oracle(("positive", "negative")), tmp_path)
    assert metrics == {"task": "sst2", "labels": ["negative", "positive"], "metrics": {"accuracy": 0.5}}
    assert lines == [
        {"index": 0, "label": "positive", "prediction": "positive", "logits": [0.0, 1.0]},
        {"index": 1, "label": "positive", "prediction": "negative", "logits": [1.0, 0.0]},
    ]


def test_saved_multi_label_and_regression(tmp_path: Path) -> None:
    multi = Task(name="m", kind="multi_label", labels=("a", "b"), metrics=("f1_micro",), primary_metric="", pair=False)
    _, lines = saved(
        multi, [Example("x", None, (1, 0))], ("a", "b"), lambda rows: [np.array([1.0, 2.0]) for _ in rows], tmp_path
    )
    assert lines == [{"index": 0, "label": ["a"], "prediction": ["a", "b"], "logits": [1.0, 2.0]}]
    numbers = Task(name="r", kind="regression", metrics=("mean_squared_error",), primary_metric="", pair=False)
    metrics, lines = saved(
        numbers, [Example("x", None, 2.0)], ("LABEL_0",), lambda rows: [np.array([3.5]) for _ in rows], tmp_path
    )
    assert metrics["metrics"] == {"mean_squared_error": 2.25}
    assert lines == [{"index": 0, "label": 2.0, "prediction": 3.5, "logits": [3.5]}]
