"""Label order: found where the examples tell it, refused where they do not."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from squeezebert.errors import InputError
from squeezebert.evaluation.label_order import built_in_pairs, calibrate_label_order

NLI = ("contradiction", "entailment", "neutral")


def scores(gold: list[str], order: tuple[str, ...], noise: float) -> NDArray[np.float64]:
    """Scores of a model whose outputs mean ``order``; the larger the noise, the more often it is wrong."""
    right = np.array([[float(name == label) for name in order] for label in gold])
    return right + noise * np.random.default_rng(0).normal(size=right.shape)


@pytest.mark.parametrize("order", itertools.permutations(NLI))
def test_any_order_is_found(order: tuple[str, ...]) -> None:
    gold = [pair.label for pair in built_in_pairs()]
    found = calibrate_label_order(scores(gold, order, 0.4), gold)
    assert found.labels == order
    assert found.accuracy > 0.8
    # Any other order of three keeps at most one name in place.
    assert found.runner_up < 0.5


@pytest.mark.parametrize("names", [("no", "yes"), ("a", "b", "c", "d")])
def test_two_and_four_labels(names: tuple[str, ...]) -> None:
    gold = [names[index % len(names)] for index in range(80)]
    order = names[::-1]
    assert calibrate_label_order(scores(gold, order, 0.0), gold).labels == order


def test_figures_on_a_worked_example() -> None:
    # Ten of each; output 0 is "b" and output 1 "a". Of the "a" eight are right, of the "b" all.
    gold = ["a"] * 10 + ["b"] * 10
    predicted = [1] * 8 + [0] * 2 + [0] * 10
    found = calibrate_label_order(np.eye(2)[predicted], gold)
    assert found.labels == ("b", "a")
    assert (found.accuracy, found.runner_up) == (0.9, 0.1)
    assert found.z == pytest.approx((18 - 2) / 20**0.5)


def test_a_model_that_knows_nothing_is_refused() -> None:
    gold = [pair.label for pair in built_in_pairs()]
    with pytest.raises(InputError, match=r"the order of the labels is unclear on 45 examples: .* right, .*; give more"):
        calibrate_label_order(np.random.default_rng(1).normal(size=(45, 3)), gold)


def test_one_answer_for_everything_is_refused() -> None:
    gold = [pair.label for pair in built_in_pairs()]
    with pytest.raises(InputError, match="33%"):
        calibrate_label_order(np.tile([1.0, 0.0, 0.0], (45, 1)), gold)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [(2, "the model has 2 outputs, but the examples have 3 labels"), (4, "has 4 outputs"), (5, "of 5 labels cannot")],
)
def test_another_number_of_outputs_is_refused(outputs: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate_label_order(np.zeros((3, outputs)), list(NLI))


def test_the_built_in_pairs_are_balanced_and_different() -> None:
    pairs = built_in_pairs()
    assert Counter(pair.label for pair in pairs) == dict.fromkeys(NLI, 15)
    assert len({(pair.premise, pair.hypothesis) for pair in pairs}) == 45
