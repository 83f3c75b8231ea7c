"""Passages of consecutive sentences, and pairs of them for sentence-order prediction (Lan et al. 2020, section 3.1).

Pairs are two neighbouring stretches of whole sentences of one document, swapped half of the time; label 1 is swapped, 0
in order. Where google-research/albert ``create_pretraining_data.py`` pairs a passage of a single sentence with a random
other one, which is next-sentence prediction, a pair here has a sentence or more on either side.

**Nothing but the order of the halves may tell the label**, so both halves are drawn alike: each is a run of sentences
that begins at a boundary and stops with the one that reaches its share of the room; or, towards a document's end, both
are drawn from their ends backwards. (Filling a passage as a whole and cutting it somewhere, as ALBERT does, is not
enough. The sentence in which the room ends, or at a random token of the text, is likelier a long one than the sentence
at the cut is: by the length of the halves' first sentences alone, 55.9 % of such pairs of 128 tokens could be told.) A
half must not stop with its document either, where the other has reached its share: that would tell as much. Pairs
that are too long lose tokens as ALBERT's do, from the longer half; at the beginnings or at the ends, by a coin for the
pair. Cutting each half at its outer end would leave their meeting whole, and give the label away.

Shapes: ``R`` rows, ``S`` sentences. Positions count the tokens, or the sentences, of a whole corpus.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Two stretches of tokens a row, each ``start`` up to, without, ``stop``."""

    first_start: Int64
    first_stop: Int64
    second_start: Int64
    second_stop: Int64
    labels: Int64
    """1 where the stretches are swapped, 0 where they are in order. *Shape:* ``[R]``, as all the others."""


def passages(
    sentence_offsets: Int64,
    document_first: Int64,
    document_end: Int64,
    start: Int64,
    tokens: Int64,
    generator: np.random.Generator,
) -> tuple[Int64, Int64]:
    """Choose the sentences that fill a number of tokens at about a given place, never leaving the document.

    Half of the passages begin with the sentence at ``start`` and grow forwards, the other half end with the sentence
    at ``start + tokens`` and grow backwards, until they hold ``tokens`` or the document's edge is reached.

    Args:
        sentence_offsets: Where each sentence starts, and the end of the last, in tokens. *Shape:* ``[S+1]``
        document_first: First sentence of each row's document. *Shape:* ``[R]``
        document_end: Sentence after its last. *Shape:* ``[R]``
        start: Token of the document at which to begin, at least ``tokens`` before its end if it is that long.
        tokens: How many tokens to fill. *Shape:* ``[R]``
        generator: Source of chance.

    Returns:
        First sentence of each passage and the sentence after its last, ``[R]``.
    """
    forwards = generator.random(len(start)) < 0.5
    first = _sentence_at(sentence_offsets, start, document_first, document_end - 1)
    end = _boundary_after(sentence_offsets, start + tokens, document_first + 1, document_end)
    grown_end = _boundary_after(sentence_offsets, sentence_offsets[first] + tokens, document_first + 1, document_end)
    grown_first = _sentence_at(sentence_offsets, sentence_offsets[end] - tokens, document_first, document_end - 1)
    return np.where(forwards, first, grown_first), np.where(forwards, grown_end, end)


def neighbours(
    sentence_offsets: Int64,
    document_first: Int64,
    document_end: Int64,
    start: Int64,
    tokens: Int64,
    generator: np.random.Generator,
) -> tuple[Int64, Int64, Int64]:
    """Choose two stretches of sentences, one after the other, that together fill a number of tokens at about a place.

    The room is shared at random. Towards the beginning of a document a pair begins with the first sentence after
    ``start``: the earlier stretch grows forwards until it has its share, then the later one. Towards its end a pair
    ends with the last sentence before ``start + tokens``, and both grow backwards. A place less than a quarter of the
    room from the document's edge moves there, for sentences at the edge are in reach of few places. A document that
    ends before both have their share is taken whole, and cut at any of its boundaries; it is hardly longer than the
    room, but for very long sentences.

    Args:
        sentence_offsets: Where each sentence starts, and the end of the last, in tokens. *Shape:* ``[S+1]``
        document_first: First sentence of each row's document, which has two or more. *Shape:* ``[R]``
        document_end: Sentence after its last. *Shape:* ``[R]``
        start: Token of the document at which to begin, at least ``tokens`` before its end if it is that long.
        tokens: How many tokens to fill, at least 2. *Shape:* ``[R]``
        generator: Source of chance.

    Returns:
        First sentence of the earlier stretch, first of the later one, and the sentence after the last, ``[R]``.
    """
    offsets, lowest, highest = sentence_offsets, document_first, document_end
    share = generator.integers(1, tokens)
    anywhere = lowest + 1 + generator.integers(highest - lowest - 1)
    # No sentence's length has a part in this choice, or those of the pair would tell of it.
    place, spare = start - offsets[lowest], offsets[highest] - offsets[lowest] - tokens
    forwards = place < (0.25 + 0.5 * generator.random(len(start))) * spare
    place = np.where(forwards & (place < tokens // 4), 0, place)
    place = np.where(~forwards & (place > spare - tokens // 4), spare, place)
    start = offsets[lowest] + place

    # A place beside the document says that it ended too soon, so only what is looked up next is kept inside.
    after = _boundary_after(offsets, start, lowest, highest)
    boundary = _boundary_after(offsets, offsets[after] + share, lowest, highest)
    end = np.searchsorted(offsets, offsets[boundary] + tokens - share, side="left")

    before = _sentence_at(offsets, start + tokens, lowest, highest)
    met = _sentence_at(offsets, offsets[before] - share, lowest, highest)
    first = np.searchsorted(offsets, offsets[met] - (tokens - share), side="right") - 1

    whole = np.where(forwards, end > highest, first < lowest)
    return (
        np.where(whole, lowest, np.where(forwards, after, first)),
        np.where(whole, anywhere, np.where(forwards, boundary, met)),
        np.where(whole, highest, np.where(forwards, end, before)),
    )


def _sentence_at(offsets: Int64, token: Int64, lowest: Int64, highest: Int64) -> Int64:
    """Sentence that holds a token, or begins there, kept between two others."""
    return np.clip(np.searchsorted(offsets, token, side="right") - 1, lowest, highest)


def _boundary_after(offsets: Int64, token: Int64, lowest: Int64, highest: Int64) -> Int64:
    """First sentence that starts at a token or later, kept between two others."""
    return np.clip(np.searchsorted(offsets, token, side="left"), lowest, highest)


def order_pairs(
    sentence_offsets: Int64,
    first: Int64,
    boundary: Int64,
    end: Int64,
    tokens: Int64,
    generator: np.random.Generator,
    *,
    both_orders: bool = False,
) -> Pairs:
    """Swap half of the pairs, and shorten them to the room there is.

    Args:
        sentence_offsets: Where each sentence starts, and the end of the last, in tokens. *Shape:* ``[S+1]``
        first: First sentence of each earlier stretch. *Shape:* ``[R]``
        boundary: First sentence of the later one. *Shape:* ``[R]``
        end: Sentence after its last. *Shape:* ``[R]``
        tokens: Most tokens of a pair, at least 2. *Shape:* ``[R]``
        generator: Source of chance.
        both_orders: Rows ``2i`` and ``2i+1`` are one pair; swap one of the two.
    """
    earlier = sentence_offsets[first], sentence_offsets[boundary]
    later = sentence_offsets[boundary], sentence_offsets[end]
    labels = generator.integers(2, size=len(first))
    beginnings = generator.random(len(first)) < 0.5
    if both_orders:
        labels[1::2] = 1 - labels[::2]
        beginnings[1::2] = beginnings[::2]
    swapped = labels == 1
    one_start, one_stop = (np.where(swapped, b, a) for a, b in zip(earlier, later, strict=True))
    two_start, two_stop = (np.where(swapped, a, b) for a, b in zip(earlier, later, strict=True))
    one_size, two_size = one_stop - one_start, two_stop - two_start
    half = tokens // 2
    one_excess = np.maximum(one_size - np.maximum(tokens - two_size, tokens - half), 0)
    two_excess = np.maximum(two_size - np.maximum(tokens - one_size, half), 0)
    return Pairs(
        first_start=np.where(beginnings, one_start + one_excess, one_start),
        first_stop=np.where(beginnings, one_stop, one_stop - one_excess),
        second_start=np.where(beginnings, two_start + two_excess, two_start),
        second_stop=np.where(beginnings, two_stop, two_stop - two_excess),
        labels=labels,
    )


def overlap(
    pairs: Pairs, tokens: Int64, places: NDArray[np.float64], document_start: Int64, document_stop: Int64
) -> Pairs:
    """Let the later stretch of some pairs begin with the end of the earlier one.

    Such a pair keeps its order and the sizes of its stretches. Both begin and end at any token: at which edges a
    sentence begins or ends must not tell the order.

    Args:
        pairs: What :func:`order_pairs` made.
        tokens: How many tokens stand in both stretches, at most the shorter of them; 0 leaves a pair as it is.
            *Shape:* ``[R]``
        places: Where in its document a pair then lies, 0 (its beginning) up to 1. *Shape:* ``[R]``
        document_start: First token of each pair's document. *Shape:* ``[R]``
        document_stop: Token after its last. *Shape:* ``[R]``
    """
    swapped = pairs.labels == 1
    first, second = pairs.first_stop - pairs.first_start, pairs.second_stop - pairs.second_start
    earlier = np.where(swapped, second, first)
    shared = np.minimum(tokens, np.minimum(first, second))
    spare = document_stop - document_start - (first + second - shared)
    earlier_start = document_start + (places * (spare + 1)).astype(np.int64)
    later_start = earlier_start + earlier - shared
    first_start = np.where(shared > 0, np.where(swapped, later_start, earlier_start), pairs.first_start)
    second_start = np.where(shared > 0, np.where(swapped, earlier_start, later_start), pairs.second_start)
    return Pairs(first_start, first_start + first, second_start, second_start + second, pairs.labels)


def shorten(start: Int64, stop: Int64, tokens: Int64, generator: np.random.Generator) -> tuple[Int64, Int64]:
    """Cut stretches down to a number of tokens, somewhere within them: every part has its chance."""
    excess = np.maximum(stop - start - tokens, 0)
    front = generator.integers(excess + 1)
    return start + front, stop - (excess - front)
