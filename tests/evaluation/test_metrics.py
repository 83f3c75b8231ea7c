from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from squeezebert.errors import InputError
from squeezebert.evaluation.metrics import METRICS, decide, score


def task(kind: str, metrics: str, num_labels: int) -> Any:
    return SimpleNamespace(name="mine", kind=kind, metrics=tuple(metrics.split()), num_labels=num_labels)


def one_hot(classes: list[int], num_labels: int = 2) -> Any:
    return np.eye(num_labels, dtype=np.float32)[classes]


def test_binary_figures_by_hand() -> None:
    # Class 1: 3 hits, 1 false alarm, 2 misses; class 0: 4 hits. F1 = 2*3/(2*3+1+2); MCC = (3*4-1*2)/sqrt(4*5*5*6).
    labels = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    predicted = [1, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    scores = score(
        task("single_label", "accuracy f1 accuracy_and_f1 matthews_correlation f1_macro", 2), one_hot(predicted), labels
    )
    assert scores["accuracy"] == pytest.approx(0.7, abs=1e-12)
    assert scores["f1"] == pytest.approx(6 / 9, abs=1e-12)
    assert scores["accuracy_and_f1"] == pytest.approx((0.7 + 6 / 9) / 2, abs=1e-12)
    assert scores["matthews_correlation"] == pytest.approx(10 / np.sqrt(600), abs=1e-12)
    assert scores["f1_macro"] == pytest.approx((6 / 9 + 8 / 11) / 2, abs=1e-12)
    assert list(scores) == ["accuracy", "f1", "accuracy_and_f1", "matthews_correlation", "f1_macro"]


def test_regression_figures_by_hand() -> None:
    # Ranks 1..4 against 1, 3, 2, 4: rho = 1 - 6*2/(4*15); Pearson from the definition; squared errors 0, 1, 0, 4.
    labels, predicted = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0 + 1e-9, 6.0]
    scores = score(
        task("regression", "pearson spearman pearson_and_spearman mean_squared_error", 1),
        np.array(predicted)[:, None],
        labels,
    )
    x, y = np.array(labels) - 2.5, np.array(predicted) - 3.0
    pearson = (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())
    assert scores["spearman"] == pytest.approx(0.8, abs=1e-12)
    assert scores["pearson"] == pytest.approx(pearson, abs=1e-8)
    assert scores["pearson_and_spearman"] == pytest.approx((pearson + 0.8) / 2, abs=1e-8)
    assert scores["mean_squared_error"] == pytest.approx((0 + 1 + 1 + 4) / 4, abs=1e-8)


def test_multi_label_figures_by_hand() -> None:
    logits = np.array([[2.0, -1.0], [0.0, 3.0], [-4.0, -0.1]])  # a logit of zero is a probability of one half: yes
    labels = [(1, 0), (0, 1), (0, 1)]
    scores = score(task("multi_label", "accuracy f1_micro f1_macro", 2), logits, labels)
    assert scores["accuracy"] == pytest.approx(1 / 3)  # only the first has every label right
    assert scores["f1_micro"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_equal_to_libraries_on_random_predictions() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(500, 3)), random.integers(0, 3, 500)
    predicted = logits.argmax(axis=1)
    assert score(task("single_label", "accuracy f1_macro f1_micro matthews_correlation", 3), logits, labels) == {
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
        "f1_macro": sklearn.metrics.f1_score(labels, predicted, average="macro"),
        "f1_micro": sklearn.metrics.f1_score(labels, predicted, average="micro"),
        "matthews_correlation": sklearn.metrics.matthews_corrcoef(labels, predicted),
    }
    values = labels + random.normal(size=500)
    assert score(task("regression", "pearson spearman", 1), values[:, None], labels) == {
        "pearson": scipy.stats.pearsonr(labels, values).statistic,
        "spearman": scipy.stats.spearmanr(labels, values).statistic,
    }


@pytest.mark.parametrize("labels", [[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
def test_correlation_without_variation_is_zero(labels: list[float]) -> None:
    constant = np.full((3, 1), 0.3, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score(task("regression", "pearson spearman", 1), constant, labels) == {"pearson": 0.0, "spearman": 0.0}
        assert score(task("regression", "pearson", 1), constant[:1], labels[:1]) == {"pearson": 0.0}


@pytest.mark.parametrize("metric", ["matthews_correlation", "f1"])
def test_one_class_is_zero_without_a_warning(metric: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score(task("single_label", metric, 2), one_hot([0, 0, 0]), [0, 0, 0]) == {metric: 0.0}


def test_nearly_constant_predictions_do_not_warn() -> None:
    logits = np.array([[1.0], [1.0 + 1e-15], [1.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(score(task("regression", "pearson", 1), logits, [0.0, 1.0, 2.0])["pearson"])


def test_first_of_equal_logits_wins() -> None:
    assert decide("single_label", np.zeros((2, 3))).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("given", "logits", "labels", "message"),
    [
        (task("single_label", "accuracy", 2), np.zeros((0, 2)), [], "no labelled examples"),
        (task("single_label", "accuracy", 3), np.zeros((2, 2)), [0, 1], r"\[2, 2\].*\[2, 3\]"),
        (task("single_label", "accuracy", 2), np.array([[np.nan, 0.0]]), [0], "NaN"),
        (task("regression", "pearson", 1), np.zeros((1, 1)), [float("nan")], "NaN"),
        (task("single_label", "acuracy", 2), np.zeros((1, 2)), [0], "unknown metric 'acuracy'; known are accuracy"),
    ],
)
def test_what_cannot_be_scored_says_why(given: Any, logits: Any, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(given, logits, labels)


def test_every_metric_has_a_finite_value_for_a_random_guesser() -> None:
    random = np.random.default_rng(1)
    labels, predicted = random.integers(0, 2, 50), random.integers(0, 2, 50)
    for name, compute in METRICS.items():
        assert -1 <= compute(labels, predicted) <= 1, name
