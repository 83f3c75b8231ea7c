"""Metrics by name, over logits and labels; the figures are scikit-learn's and scipy's.

All are fractions (0.912, not 91.2). How logits become predictions is decided here once, in :func:`decide`, for scores
and for the runtime alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.errors import InputError, require

if TYPE_CHECKING:
    from squeezebert.data.tasks import Kind, Task

Array = NDArray[Any]


def decide(kind: Kind, logits_BK: Array) -> Array:
    """Turn logits into predictions.

    *Shape:* ``logits_BK [B, K]`` -> single_label: class indices ``[B]`` (the first of equals); multi_label: 0 or 1
    ``[B, K]``, 1 where the probability is at least one half, which is where the logit is not negative; regression:
    values ``[B]``.
    """
    if kind == "single_label":
        decisions: Array = np.argmax(logits_BK, axis=1)
    elif kind == "multi_label":
        decisions = (logits_BK >= 0).astype(np.int64)
    else:
        decisions = logits_BK[:, 0]
    return decisions


def _sklearn(name: str, **settings: Any) -> Callable[[Array, Array], float]:
    """A metric of scikit-learn by the name of its function, imported when it is first used."""

    def compute(labels: Array, predictions: Array) -> float:
        return float(getattr(require("sklearn.metrics", "train"), name)(labels, predictions, **settings))

    return compute


def _correlation(name: str) -> Callable[[Array, Array], float]:
    """A correlation of scipy by the name of its function; 0.0 where it is not defined."""

    def compute(labels: Array, predictions: Array) -> float:
        if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
            return 0.0
        return float(getattr(require("scipy.stats", "train"), name)(labels, predictions).statistic)

    return compute


def _mean(*names: str) -> Callable[[Array, Array], float]:
    """The mean of other metrics, as GLUE's score of a task with two."""

    def compute(labels: Array, predictions: Array) -> float:
        return float(np.mean([METRICS[name](labels, predictions) for name in names]))

    return compute


METRICS: dict[str, Callable[[Array, Array], float]] = {
    # Share of examples predicted right; multi-label: with every label right.
    "accuracy": _sklearn("accuracy_score"),
    # F1 of class 1 against class 0; 0.0 where class 1 is neither predicted nor present.
    "f1": _sklearn("f1_score", pos_label=1, average="binary", zero_division=0),
    # Mean of the classes' F1; of the classes that occur in labels or predictions.
    "f1_macro": _sklearn("f1_score", average="macro", zero_division=0),
    # F1 over all decisions together.
    "f1_micro": _sklearn("f1_score", average="micro", zero_division=0),
    # 0.0 where labels or predictions are all of one class.
    "matthews_correlation": _sklearn("matthews_corrcoef"),
    # 0.0 where labels or predictions are all equal: nothing varies, so nothing is explained.
    "pearson": _correlation("pearsonr"),
    "spearman": _correlation("spearmanr"),
    "mean_squared_error": _sklearn("mean_squared_error"),
    # The single figure that the GLUE table prints for MRPC and QQP, and for STS-B.
    "accuracy_and_f1": _mean("accuracy", "f1"),
    "pearson_and_spearman": _mean("pearson", "spearman"),
}
"""Name -> function of (labels, predictions), both as :func:`decide` shapes them."""


def score(task: Task, logits_BK: Array, labels: Array | Sequence[Any]) -> dict[str, float]:
    """Score a model's logits by the metrics of ``task``.

    Args:
        task: Says the kind of prediction and names the metrics.
        logits_BK: *Shape:* ``[B, K]``, one row per example; K = 1 for regression.
        labels: *Shape:* single_label: class indices ``[B]``; multi_label: 0 or 1 ``[B, K]``; regression: values
            ``[B]``.

    Returns:
        metric name -> value, a fraction, in the order of ``task.metrics``. Correlations that are not defined, of one
        example or of constant predictions, are 0.0.

    Raises:
        InputError: There is nothing to score, the sizes do not match, logits or labels hold NaN, or a metric is
            unknown.
    """
    logits_BK = np.asarray(logits_BK, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.float64 if task.kind == "regression" else np.int64)
    if len(labels) == 0:
        raise InputError(f"{task.name}: no labelled examples to score")
    if logits_BK.shape != (len(labels), task.num_labels):
        raise InputError(
            f"{task.name}: logits have shape {list(logits_BK.shape)}, but {len(labels)} labels of a task with "
            f"{task.num_labels} outputs need {[len(labels), task.num_labels]}"
        )
    if not np.isfinite(logits_BK).all() or not np.isfinite(labels).all():
        raise InputError(f"{task.name}: logits or labels hold NaN or infinite values; has the training diverged?")
    unknown = [name for name in task.metrics if name not in METRICS]
    if unknown:
        raise InputError(f"{task.name}: unknown metric {unknown[0]!r}; known are {', '.join(METRICS)}")
    predictions = decide(task.kind, logits_BK)
    with warnings.catch_warnings():
        # scikit-learn and scipy warn of one-class and near-constant input, whose values are defined above.
        warnings.simplefilter("ignore")
        return {name: METRICS[name](labels, predictions) for name in task.metrics}
