"""Pairs for sentence-order prediction, compared with the rules of the ALBERT paper's code."""

from __future__ import annotations

import numpy as np
import pytest

from squeezebert.data.sentence_order import Pairs, neighbours, order_pairs, overlap, passages, shorten

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


Place = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.random.Generator]


def places(offsets: np.ndarray, documents: np.ndarray, room: int, seed: int = 0, rows: int = ROWS) -> Place:
    """Edges of random documents, random places in them, the room, and what chance is left."""
    generator = np.random.default_rng(seed)
    document = generator.integers(len(documents) - 1, size=rows)
    lowest, highest = documents[document], documents[document + 1]
    size = offsets[highest] - offsets[lowest]
    start = offsets[lowest] + (generator.random(rows) * np.maximum(size - room, 0)).astype(np.int64)
    return lowest, highest, start, np.full(rows, room), generator


def draw(offsets: np.ndarray, documents: np.ndarray, room: int, seed: int = 0, rows: int = ROWS) -> tuple[Pairs, ...]:
    """Pairs from random places of random documents, with the stretches they come from."""
    lowest, highest, start, tokens, generator = places(offsets, documents, room, seed, rows)
    stretches = neighbours(offsets, lowest, highest, start, tokens, generator)
    return order_pairs(offsets, *stretches, tokens, generator), *stretches  # type: ignore[return-value]


@pytest.mark.parametrize("room", [2, 13, 125, 509])
def test_passages_fill_the_room_inside_one_document(offsets: np.ndarray, documents: np.ndarray, room: int) -> None:
    lowest, highest, start, tokens, generator = places(offsets, documents, room)
    first, end = passages(offsets, lowest, highest, start, tokens, generator)
    assert (first >= lowest).all()
    assert (end <= highest).all()
    assert (offsets[end] - offsets[first] >= np.minimum(room, offsets[highest] - offsets[lowest])).all()
    # No sentence too many: without the first or the last there would be room left.
    fewer = np.minimum(offsets[end - 1] - offsets[first], offsets[end] - offsets[first + 1])
    assert (fewer < room).all()


@pytest.mark.parametrize("room", [2, 13, 125, 509])
def test_neighbours_fill_the_room_inside_one_document(offsets: np.ndarray, documents: np.ndarray, room: int) -> None:
    lowest, highest, start, tokens, generator = places(offsets, documents, room)
    first, boundary, end = neighbours(offsets, lowest, highest, start, tokens, generator)
    assert (lowest <= first).all()
    assert (first < boundary).all()
    assert (boundary < end).all()
    assert (end <= highest).all()
    assert (offsets[end] - offsets[first] >= np.minimum(room, offsets[highest] - offsets[lowest])).all()
    # Neither half has a sentence that it does not need, unless it is alone or the document is taken whole.
    whole = (first == lowest) & (end == highest)
    for one, other in ((first, boundary), (boundary, end)):
        fewer = np.minimum(offsets[other - 1] - offsets[one], offsets[other] - offsets[one + 1])
        assert (fewer < room)[(other - one > 1) & ~whole].all()
    # A document that fits is taken whole.
    assert whole[offsets[highest] - offsets[lowest] <= room].all()


def test_neighbours_lie_near_their_place(offsets: np.ndarray, documents: np.ndarray) -> None:
    """A quarter of the room and a sentence away from it, and longer by two sentences, of 300 tokens at the most."""
    lowest, highest, start, tokens, generator = places(offsets, documents, 125)
    first, _, end = neighbours(offsets, lowest, highest, start, tokens, generator)
    whole = (first == lowest) & (end == highest)
    most = 125 // 4 + 3 * 300
    assert (np.abs(offsets[first] - start) <= most)[~whole].all()
    assert (np.abs(offsets[end] - start - 125) <= most)[~whole].all()
    # What is taken whole has no room for these, growing towards the edge that is a quarter of the way off or more.
    assert (offsets[end] - offsets[first] <= 125 + 4 * most)[whole].all()


def test_every_sentence_of_a_document_is_seen() -> None:
    """Those at the edges, which fewer places are near, half as often as the others."""
    offsets = np.concatenate([[0], np.cumsum(np.random.default_rng(0).integers(5, 50, size=60))])
    rows, room = 50_000, 100
    generator = np.random.default_rng(1)
    tokens = np.full(rows, room)
    middle = generator.random(rows) * offsets[-1]
    start = np.clip(np.round(middle - room / 2), 0, offsets[-1] - room).astype(np.int64)
    zeros = np.zeros(rows, np.int64)
    first, boundary, end = neighbours(offsets, zeros, zeros + 60, start, tokens, generator)
    pairs = order_pairs(offsets, first, boundary, end, tokens, generator)
    seen = np.zeros(offsets[-1] + 1)
    for begin, stop in ((pairs.first_start, pairs.first_stop), (pairs.second_start, pairs.second_stop)):
        np.add.at(seen, begin, 1)
        np.subtract.at(seen, stop, 1)
    share = np.cumsum(seen)[:-1] / rows * offsets[-1] / room
    assert share.min() > 0.4
    assert share[100:-100].min() > 0.6
    assert share.max() < 1.5


def test_a_document_of_two_sentences_is_cut_between_them() -> None:
    offsets = np.array([0, 50, 52, 102])
    lowest, highest = np.array([0, 1, 0, 1]), np.array([2, 3, 2, 3])
    start, tokens = np.array([0, 50, 30, 80]), np.full(4, 20)
    for seed in range(20):
        first, boundary, end = neighbours(offsets, lowest, highest, start, tokens, np.random.default_rng(seed))
        np.testing.assert_array_equal(first, lowest)
        np.testing.assert_array_equal(boundary, lowest + 1)
        np.testing.assert_array_equal(end, highest)


def test_labels_say_swapped(offsets: np.ndarray, documents: np.ndarray) -> None:
    pairs, *_ = draw(offsets, documents, 125)
    in_order = pairs.labels == 0
    assert (pairs.first_stop <= pairs.second_start)[in_order].all()
    assert (pairs.second_stop <= pairs.first_start)[~in_order].all()


def test_half_of_the_pairs_are_swapped(offsets: np.ndarray, documents: np.ndarray) -> None:
    pairs, *_ = draw(offsets, documents, 125, rows=40_000)
    assert pairs.labels.mean() == pytest.approx(0.5, abs=0.01)


def test_pairs_of_a_short_document_meet_at_every_sentence_boundary_alike() -> None:
    offsets = np.arange(0, 60, 10)
    rows = 20_000
    zeros, ends, tokens = np.zeros(rows, np.int64), np.full(rows, 5), np.full(rows, 100)
    generator = np.random.default_rng(0)
    first, boundary, end = neighbours(offsets, zeros, ends, zeros, tokens, generator)
    pairs = order_pairs(offsets, first, boundary, end, tokens, generator)
    met = np.where(pairs.labels == 1, pairs.second_stop, pairs.first_stop)
    np.testing.assert_array_equal(met, offsets[boundary])
    np.testing.assert_allclose(np.bincount(boundary, minlength=5)[1:] / rows, 0.25, atol=0.02)
    # Nothing to shorten: the halves are whole and touch.
    assert (np.where(pairs.labels == 1, pairs.first_start, pairs.second_start) == met).all()
    assert (pairs.first_stop - pairs.first_start + pairs.second_stop - pairs.second_start == 50).all()


@pytest.mark.parametrize("room", [29, 61, 125])
@pytest.mark.parametrize("rooms", [1.25, 3, 20])
def test_halves_are_alike(room: int, rooms: float) -> None:
    """The sentences of this text have no order, so nothing may tell which half comes first: not the length of a half,
    nor that of its first or last sentence. Filling a passage and cutting it anywhere would give 0.56 in long documents,
    a half that ends with its document 0.55 in short ones."""
    rows = 60_000
    sentences = max(3, round(rooms * room / 27))
    count = min(rows, 1_000_000 // sentences)
    lengths_S = np.clip(np.random.default_rng(room).lognormal(3.0, 0.8, size=count * sentences), 1, 300)
    offsets = np.concatenate([[0], np.cumsum(lengths_S.astype(np.int64))])
    pairs, *_ = draw(offsets, np.arange(0, len(offsets), sentences), room, rows=rows)

    def lengths(start: np.ndarray, stop: np.ndarray) -> list[np.ndarray]:
        first_end = offsets[np.searchsorted(offsets, start, side="right")]
        last_start = offsets[np.searchsorted(offsets, stop, side="left") - 1]
        return [stop - start, np.minimum(first_end, stop) - start, stop - np.maximum(last_start, start)]

    halves = lengths(pairs.first_start, pairs.first_stop), lengths(pairs.second_start, pairs.second_stop)
    swapped = pairs.labels == 1
    for one, two in zip(*halves, strict=True):
        shorter_is_later = np.where(swapped, one < two, two < one).mean() + (one == two).mean() / 2
        # Five standard deviations of a coin's share.
        assert abs(shorter_is_later - 0.5) < 5 * 0.5 / np.sqrt(rows)


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
    pairs = order_pairs(offsets, first, first + 1, first + 2, np.full(len(sizes), room), np.random.default_rng(room))
    for row, (a, b) in enumerate(sizes):
        one, two = (b, a) if pairs.labels[row] else (a, b)
        got = (pairs.first_stop[row] - pairs.first_start[row], pairs.second_stop[row] - pairs.second_start[row])
        assert got == truncated(one, two, room)


def test_halves_stay_within_their_sentences(offsets: np.ndarray, documents: np.ndarray) -> None:
    pairs, first, _, end = draw(offsets, documents, 61)
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


def test_overlapping_pairs(offsets: np.ndarray, documents: np.ndarray) -> None:
    """The later stretch begins with the end of the earlier one; sizes, orders and documents stay."""
    lowest, highest, start, tokens, generator = places(offsets, documents, 125)
    stretches = neighbours(offsets, lowest, highest, start, tokens, generator)
    plain = order_pairs(offsets, *stretches, tokens, generator)
    repeated = generator.integers(0, 40, size=ROWS)
    pairs = overlap(plain, repeated, generator.random(ROWS), offsets[lowest], offsets[highest])
    first, second = pairs.first_stop - pairs.first_start, pairs.second_stop - pairs.second_start
    assert np.array_equal(pairs.labels, plain.labels)
    assert np.array_equal(first, plain.first_stop - plain.first_start)
    assert np.array_equal(second, plain.second_stop - plain.second_start)
    assert (np.minimum(pairs.first_start, pairs.second_start) >= offsets[lowest]).all()
    assert (np.maximum(pairs.first_stop, pairs.second_stop) <= offsets[highest]).all()
    swapped = pairs.labels == 1
    shared = np.where(swapped, pairs.second_stop - pairs.first_start, pairs.first_stop - pairs.second_start)
    expected = np.minimum(repeated, np.minimum(first, second))
    assert (expected < repeated).any(), "some stretches are shorter than what they were to repeat"
    assert np.array_equal(shared[repeated > 0], expected[repeated > 0])
    assert np.array_equal(pairs.first_start[repeated == 0], plain.first_start[repeated == 0])
    assert np.array_equal(pairs.second_start[repeated == 0], plain.second_start[repeated == 0])


def test_edges_of_overlapping_pairs_tell_nothing(offsets: np.ndarray, documents: np.ndarray) -> None:
    """Neither where in a sentence it begins and ends, nor its size, tells the later stretch from the earlier one."""
    lowest, highest, start, tokens, generator = places(offsets, documents, 125, rows=5 * ROWS)
    stretches = neighbours(offsets, lowest, highest, start, tokens, generator)
    plain = order_pairs(offsets, *stretches, tokens, generator)
    repeated = np.full(len(lowest), 16)
    pairs = overlap(plain, repeated, generator.random(len(lowest)), offsets[lowest], offsets[highest])
    swapped = pairs.labels == 1
    room = offsets[highest] - offsets[lowest] > 1000  # else both often begin at the edges of their document
    figures = []
    for begin, stop in ((pairs.first_start, pairs.first_stop), (pairs.second_start, pairs.second_stop)):
        into_sentence = begin - offsets[np.searchsorted(offsets, begin, side="right") - 1]
        to_end = offsets[np.searchsorted(offsets, begin, side="right")] - begin
        before_end = stop - offsets[np.searchsorted(offsets, stop, side="left") - 1]
        figures.append(np.stack([into_sentence, to_end, before_end, stop - begin]))
    earlier, later = (np.where(swapped, b, a)[:, room] for a, b in (figures, figures[::-1]))
    error = np.sqrt((earlier.var(axis=1) + later.var(axis=1)) / room.sum())
    assert (np.abs(earlier.mean(axis=1) - later.mean(axis=1)) < 4 * error).all()
    assert np.abs((earlier == 0).mean(axis=1) - (later == 0).mean(axis=1)).max() < 0.01
