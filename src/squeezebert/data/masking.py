"""Which tokens a masked language model has to guess, and what it sees in their place. NumPy only.

Shapes: ``R`` rows, ``T`` tokens of a row, ``K`` blocks (tokens, words or n-grams that are masked together) of a row,
``M`` masked tokens of all rows, ``V`` vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from squeezebert.errors import InputError

if TYPE_CHECKING:
    from squeezebert.tokenizer import Tokenizer

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_UNUSED = re.compile(r"\[unused\d+\]")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What pretraining needs to know of a vocabulary."""

    cls_id: int
    """Begins a row."""
    sep_id: int
    """Ends a segment."""
    pad_id: int
    """Fills a row."""
    mask_id: int
    """Stands for a masked token."""
    ordinary: Bool
    """Tokens that may be masked and may replace another: all but the special and the unused ones. *Shape:* ``[V]``."""
    continues_word: Bool
    """WordPiece tokens that are not the first of their word (``##ing``). *Shape:* ``[V]``."""

    @classmethod
    def from_tokens(
        cls, tokens: Sequence[str], *, cls_id: int, sep_id: int, pad_id: int, mask_id: int, special_ids: frozenset[int]
    ) -> Vocabulary:
        """Sort the tokens, given in id order, into special and unused ones (``[unused0]``), and the others."""
        ordinary = np.array([_UNUSED.fullmatch(token) is None for token in tokens])
        ordinary[list(special_ids | {cls_id, sep_id, pad_id, mask_id})] = False
        return cls(
            cls_id=cls_id,
            sep_id=sep_id,
            pad_id=pad_id,
            mask_id=mask_id,
            ordinary=ordinary,
            continues_word=np.array([token.startswith("##") for token in tokens]),
        )

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Read a tokenizer's vocabulary."""
        return cls.from_tokens(
            [tokenizer.id_to_token(index) or "" for index in range(tokenizer.vocab_size)],
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
            pad_id=tokenizer.pad_id,
            mask_id=tokenizer.mask_id,
            special_ids=tokenizer.special_ids,
        )


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How tokens are chosen; the defaults are BERT's.

    Raises:
        InputError: A value is outside its range; the message names the field.
    """

    rate: float = 0.15
    """Share of the ordinary tokens that are masked."""
    whole_word: bool = False
    """Mask all pieces of a word or none."""
    max_ngram: int = 1
    """Longest run of tokens (or words) masked together, with probability proportional to 1/n as in ALBERT; 1: none."""

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise InputError(f"masking: rate must lie between 0 and 1, not {self.rate}")
        if self.max_ngram < 1:
            raise InputError(f"masking: max_ngram must be at least 1, not {self.max_ngram}")


def mask_tokens(
    ids_RT: Int64, vocabulary: Vocabulary, masking: Masking, generator: np.random.Generator
) -> tuple[Int64, Int64, Int64]:
    """Mask some ordinary tokens: 80% become the mask token, 10% another ordinary token, 10% stay (Devlin et al. 2019).

    Args:
        ids_RT: Token ids; special tokens, padding among them, are left alone.
        vocabulary: Their vocabulary.
        masking: How tokens are chosen.
        generator: Source of chance; its state decides everything.

    Returns:
        Ids with the masked ones replaced, ``[R, T]``; places ``r * T + t`` of the masked tokens, ascending, ``[M]``;
        what stood there, ``[M]``.
    """
    places = np.flatnonzero(choose_tokens(ids_RT, vocabulary, masking, generator))
    labels = ids_RT.ravel()[places]
    chance = generator.random(len(places))
    ordinary_ids = np.flatnonzero(vocabulary.ordinary)
    others = ordinary_ids[generator.integers(len(ordinary_ids), size=len(places))]
    replaced = ids_RT.copy()
    replaced.ravel()[places] = np.where(chance < 0.8, vocabulary.mask_id, np.where(chance < 0.9, others, labels))
    return replaced, places, labels


def choose_tokens(ids_RT: Int64, vocabulary: Vocabulary, masking: Masking, generator: np.random.Generator) -> Bool:
    """Choose the tokens to mask, block by block, until each row's share is reached.

    The shares of the rows are rounded so that their sum is ``rate`` of all ordinary tokens, rounded. A block that
    would overshoot its row's share is taken with just the probability that keeps the expected number of tokens right.

    Returns:
        True for each chosen token, ``[R, T]``.
    """
    maskable_RT = vocabulary.ordinary[ids_RT]
    starts_RT = _block_starts(ids_RT, maskable_RT, vocabulary, masking, generator)
    block_RT = np.maximum(np.cumsum(starts_RT, axis=1) - 1, 0)
    rows, width = ids_RT.shape
    flat = (block_RT + width * np.arange(rows)[:, None])[maskable_RT]
    sizes_RK = np.bincount(flat, minlength=rows * width).reshape(rows, width)

    shares = np.floor(masking.rate * np.cumsum(maskable_RT.sum(axis=1)) + generator.random()).astype(np.int64)
    share_R1 = np.diff(shares, prepend=0)[:, None]

    order_RK = np.argsort(np.where(sizes_RK > 0, generator.random(sizes_RK.shape), 2.0), axis=1)
    sorted_RK = np.take_along_axis(sizes_RK, order_RK, axis=1)
    room_RK = share_R1 - (np.cumsum(sorted_RK, axis=1) - sorted_RK)
    chosen_RK = np.zeros(sizes_RK.shape, dtype=np.bool_)
    np.put_along_axis(chosen_RK, order_RK, generator.random((rows, 1)) * sorted_RK < room_RK, axis=1)
    chosen_RT: Bool = np.take_along_axis(chosen_RK, block_RT, axis=1) & maskable_RT
    return chosen_RT


def _block_starts(
    ids_RT: Int64, maskable_RT: Bool, vocabulary: Vocabulary, masking: Masking, generator: np.random.Generator
) -> Bool:
    """First tokens of the blocks: tokens, words, or runs of them cut at random; none reaches across a special token."""
    starts_RT = maskable_RT.copy()
    after_special_RT = maskable_RT.copy()
    after_special_RT[:, 1:] &= ~maskable_RT[:, :-1]
    if masking.whole_word:
        starts_RT &= ~vocabulary.continues_word[ids_RT] | after_special_RT
    if masking.max_ngram > 1:
        sizes = np.arange(1, masking.max_ngram + 1)
        weights = 1 / sizes
        runs_RK = generator.choice(sizes, p=weights / weights.sum(), size=ids_RT.shape)
        first_RK = np.cumsum(runs_RK, axis=1) - runs_RK
        begins_RK = np.zeros(ids_RT.shape, dtype=np.bool_)
        row, run = np.nonzero(first_RK < ids_RT.shape[1])
        begins_RK[row, first_RK[row, run]] = True
        unit_RT = np.maximum(np.cumsum(starts_RT, axis=1) - 1, 0)
        starts_RT &= np.take_along_axis(begins_RK, unit_RT, axis=1) | after_special_RT
    return starts_RT


def generator_at(seed: int, *address: int) -> np.random.Generator:
    """Give the stream of random numbers that belongs to a seed and an address, such as a step and a row.

    Streams of different addresses are independent (NumPy's ``SeedSequence`` over the counter-based Philox), so whoever
    asks for an address draws the same, in whatever process and order. All numbers are whole and not negative.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=address)))
