"""Passages of consecutive sentences, and pairs of them for sentence-order prediction (Lan et al. 2020, section 3.1).

As in google-research/albert ``create_pretraining_data.py``: consecutive sentences of one document, cut in two at a
sentence boundary, the halves swapped half of the time; label 1 is swapped, 0 in order. Where that code pairs a passage
of a single sentence with a random other one, which is next-sentence prediction, the passage here grows by a neighbour.

Nothing but the order of the halves may tell the label, so whatever is done to a pair is done alike in both directions:
passages grow forwards or backwards at the toss of a coin, and a pair that is too long loses tokens from the longer
half, at either end. A plain cut at the end of the passage would give the label away: only the later half would lack
its full stop.

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
    *,
    min_sentences: int,
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
        min_sentences: 1, or 2: a single sentence that fills the room takes in a neighbour. Documents have as many.

    Returns:
        First sentence of each passage and the sentence after its last, ``[R]``.
    """
    forwards = generator.random(len(start)) < 0.5
    first = _sentence_at(sentence_offsets, start, document_first, document_end)
    end = _boundary_after(sentence_offsets, start + tokens, document_first, document_end)
    grown_end = _boundary_after(sentence_offsets, sentence_offsets[first] + tokens, document_first, document_end)
    grown_first = _sentence_at(sentence_offsets, sentence_offsets[end] - tokens, document_first, document_end)
    first, end = np.where(forwards, first, grown_first), np.where(forwards, grown_end, end)
    if min_sentences > 1:
        single = end - first < 2
        later = single & (end < document_end) & (forwards | (first == document_first))
        end = end + later
        first = first - (single & ~later)
    return first, end


def _sentence_at(offsets: Int64, token: Int64, lowest: Int64, end: Int64) -> Int64:
    """Sentence that holds a token, kept inside the document."""
    return np.clip(np.searchsorted(offsets, token, side="right") - 1, lowest, end - 1)


def _boundary_after(offsets: Int64, token: Int64, lowest: Int64, end: Int64) -> Int64:
    """First sentence that starts at a token or later, kept inside the document."""
    return np.clip(np.searchsorted(offsets, token, side="left"), lowest + 1, end)


def order_pairs(
    sentence_offsets: Int64, first: Int64, end: Int64, tokens: Int64, generator: np.random.Generator
) -> Pairs:
    """Cut passages at a sentence boundary, swap half of them, and shorten them to the room there is.

    Args:
        sentence_offsets: Where each sentence starts, and the end of the last, in tokens. *Shape:* ``[S+1]``
        first: First sentence of each passage. *Shape:* ``[R]``
        end: Sentence after its last, at least ``first + 2``. *Shape:* ``[R]``
        tokens: Most tokens of a pair, at least 2. *Shape:* ``[R]``
        generator: Source of chance.
    """
    boundary = first + 1 + generator.integers(end - first - 1)
    earlier = sentence_offsets[first], sentence_offsets[boundary]
    later = sentence_offsets[boundary], sentence_offsets[end]
    labels = generator.integers(2, size=len(first))
    swapped = labels == 1
    one_start, one_stop = (np.where(swapped, b, a) for a, b in zip(earlier, later, strict=True))
    two_start, two_stop = (np.where(swapped, a, b) for a, b in zip(earlier, later, strict=True))
    one_size, two_size = one_stop - one_start, two_stop - two_start
    half = tokens // 2
    one_start, one_stop = shorten(one_start, one_stop, np.maximum(tokens - two_size, tokens - half), generator)
    two_start, two_stop = shorten(two_start, two_stop, np.maximum(tokens - one_size, half), generator)
    return Pairs(one_start, one_stop, two_start, two_stop, labels)


def shorten(start: Int64, stop: Int64, tokens: Int64, generator: np.random.Generator) -> tuple[Int64, Int64]:
    """Cut stretches down to a number of tokens, somewhere within them: every part has its chance."""
    excess = np.maximum(stop - start - tokens, 0)
    front = generator.integers(excess + 1)
    return start + front, stop - (excess - front)
