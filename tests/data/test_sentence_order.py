"""Pairs for sentence-order prediction, compared with the rules of the ALBERT paper's code."""

from __future__ import annotations

import numpy as np
import pytest

from squeezebert.data.sentence_order import Pairs, order_pairs, passages, shorten

ROWS = 4000


@pytest.fixture(scope="module")
def offsets() -> np.ndarray:
    """100,000 sentences of 1 to 300 tokens, most of them short."""
    lengths = np.clip(np.random.default_rng(0).lognormal(3.0, 0.8, size=100_000), 1, 300).astype(np.int64)
    return np.concatenate([[0], np.cumsum(lengths)])


@pytest.fixture(scope="module")
def documents() -> np.ndarray:
    """Documents of 2 to 60 sentences: the boundaries, in sentences."""
    generator = np.random.default_rng(1)
    boundaries = [0]
    while boundaries[-1] < 99_900:
        boundaries.append(boundaries[-1] + int(generator.integers(2, 61)))
    return np.array([*boundaries, 100_000])


def draw(offsets: np.ndarray, documents: np.ndarray, room: int, seed: int = 0, rows: int = ROWS) -> tuple[Pairs, ...]:
    """Pairs from random places of random documents, with the passages and documents they come from."""
    generator = np.random.default_rng(seed)
    document = generator.integers(len(documents) - 1, size=rows)
    lowest, highest = documents[document], documents[document + 1]
    size = offsets[highest] - offsets[lowest]
    start = offsets[lowest] + (generator.random(rows) * np.maximum(size - room, 0)).astype(np.int64)
    tokens = np.full(rows, room)
    first, end = passages(offsets, lowest, highest, start, tokens, generator, min_sentences=2)
    pairs = order_pairs(offsets, first, end, tokens, generator)
    return pairs, first, end, lowest, highest  # type: ignore[return-value]


@pytest.mark.parametrize("room", [2, 13, 125, 509])
def test_passages_fill_the_room_inside_one_document(offsets: np.ndarray, documents: np.ndarray, room: int) -> None:
    _, first, end, lowest, highest = draw(offsets, documents, room)
    assert (first >= lowest).all()
    assert (end <= highest).all()
    assert (end - first >= 2).all()
    filled = offsets[end] - offsets[first] >= np.minimum(room, offsets[highest] - offsets[lowest])
    assert filled.all()
    # No sentence too many: without the first or the last there would be room left, or a sentence alone.
    fewer = np.minimum(offsets[end - 1] - offsets[first], offsets[end] - offsets[first + 1])
    assert (fewer < room)[end - first > 2].all()


def test_a_sentence_that_fills_the_room_takes_in_a_neighbour() -> None:
    offsets = np.array([0, 50, 52, 102])
    lowest, highest = np.zeros(3, np.int64), np.full(3, 3)
    start, tokens = np.array([0, 20, 82]), np.full(3, 20)
    for seed in range(20):
        first, end = passages(offsets, lowest, highest, start, tokens, np.random.default_rng(seed), min_sentences=2)
        assert (end - first == 2).all()
        single_first, single_end = passages(
            offsets, lowest, highest, start, tokens, np.random.default_rng(seed), min_sentences=1
        )
        assert (single_end - single_first).min() == 1


def test_labels_say_swapped(offsets: np.ndarray, documents: np.ndarray) -> None:
    pairs, *_ = draw(offsets, documents, 125)
    in_order = pairs.labels == 0
    assert (pairs.first_stop <= pairs.second_start)[in_order].all()
    assert (pairs.second_stop <= pairs.first_start)[~in_order].all()


def test_half_of_the_pairs_are_swapped(offsets: np.ndarray, documents: np.ndarray) -> None:
    pairs, *_ = draw(offsets, documents, 125, rows=40_000)
    assert pairs.labels.mean() == pytest.approx(0.5, abs=0.01)


def test_pairs_meet_at_every_sentence_boundary_alike() -> None:
    offsets = np.arange(0, 60, 10)
    rows = 20_000
    zeros, ends = np.zeros(rows, np.int64), np.full(rows, 5)
    pairs = order_pairs(offsets, zeros, ends, np.full(rows, 100), np.random.default_rng(0))
    boundary = np.where(pairs.labels == 1, pairs.second_stop, pairs.first_stop)
    shares = np.bincount(boundary // 10, minlength=6)[1:5] / rows
    np.testing.assert_allclose(shares, 0.25, atol=0.02)
    # Nothing to shorten: the halves are whole and touch.
    assert (np.where(pairs.labels == 1, pairs.first_start, pairs.second_start) == boundary).all()
    assert (pairs.first_stop - pairs.first_start + pairs.second_stop - pairs.second_start == 50).all()


def truncated(first: int, second: int, room: int) -> tuple[int, int]:
    """truncate_seq_pair of google-research/albert: the longer one loses a token, the second if both are alike."""
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


@pytest.mark.parametrize("room", [2, 3, 30, 31])
def test_lengths_equal_albert_s(room: int) -> None:
    sizes = np.array([(a, b) for a in range(1, 45, 2) for b in range(1, 45)])
    offsets = np.concatenate([[0], np.cumsum(sizes.ravel())])
    first = 2 * np.arange(len(sizes))
    pairs = order_pairs(offsets, first, first + 2, np.full(len(sizes), room), np.random.default_rng(room))
    for row, (a, b) in enumerate(sizes):
        one, two = (b, a) if pairs.labels[row] else (a, b)
        got = (pairs.first_stop[row] - pairs.first_start[row], pairs.second_stop[row] - pairs.second_start[row])
        assert got == truncated(one, two, room)


def test_halves_stay_within_their_sentences(offsets: np.ndarray, documents: np.ndarray) -> None:
    pairs, first, end, *_ = draw(offsets, documents, 61)
    low = np.minimum(pairs.first_start, pairs.second_start)
    high = np.maximum(pairs.first_stop, pairs.second_stop)
    assert (low >= offsets[first]).all()
    assert (high <= offsets[end]).all()
    assert (pairs.first_stop > pairs.first_start).all()
    assert (pairs.second_stop > pairs.second_start).all()


def test_shortening_does_not_give_the_label_away(offsets: np.ndarray, documents: np.ndarray) -> None:
    """Where sentences are cut off, first or second half, front or back, must be as frequent under both labels."""
    pairs, *_ = draw(offsets, documents, 61, rows=60_000)
    edges = (pairs.first_start, pairs.first_stop, pairs.second_start, pairs.second_stop)
    cut = [~np.isin(edge, offsets) for edge in edges]
    pattern = cut[0] + 2 * cut[1] + 4 * cut[2] + 8 * cut[3]
    shares = [np.bincount(pattern[pairs.labels == label], minlength=16) for label in (0, 1)]
    in_order, swapped = (share / share.sum() for share in shares)
    assert (in_order > 0.02).sum() >= 6
    np.testing.assert_allclose(in_order, swapped, atol=0.015)


def test_shorten_reaches_every_part() -> None:
    start, stop = shorten(np.zeros(5000, np.int64), np.full(5000, 10), np.full(5000, 4), np.random.default_rng(0))
    assert (stop - start == 4).all()
    np.testing.assert_allclose(np.bincount(start, minlength=7) / 5000, 1 / 7, atol=0.02)
    start, stop = shorten(np.array([3]), np.array([5]), np.array([9]), np.random.default_rng(0))
    assert (start[0], stop[0]) == (3, 5)
