from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

from squeezebert.data.tasks import Task
from squeezebert.errors import InputError
from squeezebert.training.soft_targets import SoftTargets, match_labels
from squeezebert.training.teacher import Teacher


def _teacher(*labels: str, problem_type: str | None = None) -> Teacher:
    return Teacher("her", Path(), labels, problem_type, "bert", "")


def _task(*labels: str, kind: Any = "single_label") -> Task:
    return Task(name="mine", kind=kind, labels=labels, metrics=("accuracy",), primary_metric="accuracy", pair=False)


def test_labels_are_matched_by_name() -> None:
    task = _task("entailment", "neutral", "contradiction")
    assert match_labels(_teacher("entailment", "neutral", "contradiction"), task).tolist() == [0, 1, 2]
    # The teacher's output 2 is entailment, and so on.
    assert match_labels(_teacher("CONTRADICTION", "Neutral ", "entailment"), task).tolist() == [2, 1, 0]


@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1"), ("negative",), ("negative", "positive", "neutral")])
def test_other_labels_are_refused_with_both_lists(labels: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=rf"labels are {', '.join(labels)}, but those of mine are negative, positive"):
        match_labels(_teacher(*labels), _task("negative", "positive"))


def test_case_counts_where_it_tells_labels_apart() -> None:
    assert match_labels(_teacher("US", "us"), _task("us", "US")).tolist() == [1, 0]
    with pytest.raises(InputError, match="labels are Us, us"):
        match_labels(_teacher("Us", "us"), _task("us", "US"))


def test_another_kind_of_task_is_refused() -> None:
    with pytest.raises(InputError, match="made for regression, but mine is single_label"):
        match_labels(_teacher("a", "b", problem_type="regression"), _task("a", "b"))
    with pytest.raises(InputError, match="has 3 outputs, but mine asks for one value"):
        match_labels(_teacher("a", "b", "c"), _task(kind="regression"))
    assert match_labels(_teacher("LABEL_0"), _task(kind="regression")).tolist() == [0]


def test_targets_are_the_mean_of_the_teachers_probabilities() -> None:
    draw = np.random.default_rng(0)
    first, second = (draw.normal(0, 3, (9, 3)).astype(np.float32) for _ in range(2))
    columns = [np.array([0, 1, 2]), np.array([2, 0, 1])]
    indices = np.array([7, 0, 3])
    targets = SoftTargets([first, second], columns, "single_label", 2.5)(indices)
    expected = (softmax(first[indices] / 2.5, 1) + softmax(second[indices][:, [2, 0, 1]] / 2.5, 1)) / 2
    np.testing.assert_allclose(targets, expected, rtol=1e-5)
    assert targets.dtype == np.float32
    several = SoftTargets([first, second], columns, "multi_label", 2.5)(indices)
    np.testing.assert_allclose(several, (expit(first[indices] / 2.5) + expit(second[indices][:, [2, 0, 1]] / 2.5)) / 2,
                               rtol=1e-5)  # fmt: skip
    values = SoftTargets([first[:, :1], second[:, :1]], [np.zeros(1, int)] * 2, "regression", 1.0)(indices)
    np.testing.assert_allclose(values, (first[indices, :1] + second[indices, :1]) / 2, rtol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[-1e4, 1e4]], np.float32)
    columns = [np.arange(2)]
    for kind in ("single_label", "multi_label"):
        np.testing.assert_array_equal(SoftTargets([logits], columns, kind, 1.0)(np.array([0])), [[0, 1]])
