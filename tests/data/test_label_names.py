from __future__ import annotations

import pytest

from squeezebert.data.label_names import find_places

_MNLI = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("wanted", "among", "places"),
    [
        (_MNLI, _MNLI, [0, 1, 2]),
        (_MNLI, ("CONTRADICTION", "Neutral ", "entailment"), [2, 1, 0]),
        # Case counts where it tells labels apart, and only there.
        (("us", "US"), ("US", "us"), [1, 0]),
        (("us", "US"), ("Us", "us"), None),
        (("us", "them"), ("US", "Them"), [0, 1]),
        (("a", "A", "b"), ("A", "a", "B"), None),
        (_MNLI, ("LABEL_0", "LABEL_1", "LABEL_2"), None),
        (_MNLI, _MNLI[:2], None),
        (_MNLI[:2], _MNLI, None),
        (("a", "b"), ("a", "b", "b"), None),
        (("a", "a", "b"), ("a", "b", "c"), None),
        ((), (), []),
    ],
)
def test_labels_are_found_by_name(wanted: tuple[str, ...], among: tuple[str, ...], places: list[int] | None) -> None:
    assert find_places(wanted, among) == places
