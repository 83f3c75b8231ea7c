"""Masking: statistics over more than 100,000 tokens, and what is never touched."""

from __future__ import annotations

import numpy as np
import pytest

from squeezebert.data.masking import Masking, Vocabulary, choose_tokens, generator_at, mask_tokens
from squeezebert.errors import InputError
from squeezebert.tokenizer import Tokenizer

PAD, UNK, CLS, SEP, MASK = 0, 1, 2, 3, 4
SPECIAL = (PAD, UNK, CLS, SEP, MASK)
WORDS, PIECES = 600, 395
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"[unused{i}]" for i in range(20))]
FIRST = len(TOKENS)
TOKENS += [f"w{i}" for i in range(WORDS)] + [f"##p{i}" for i in range(PIECES)]
MASKINGS = {
    "tokens": Masking(),
    "whole words": Masking(whole_word=True),
    "n-grams": Masking(max_ngram=3),
    "n-grams of whole words": Masking(whole_word=True, max_ngram=3),
}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.from_tokens(
        TOKENS, cls_id=CLS, sep_id=SEP, pad_id=PAD, mask_id=MASK, special_ids=frozenset(SPECIAL)
    )


def rows(count: int, length: int = 128, *, padded: bool = True) -> np.ndarray:
    """Rows as the model sees them: [CLS] passage [SEP] passage [SEP] and padding, a few unknown tokens among them."""
    generator = np.random.default_rng(7)
    ids = generator.integers(FIRST, len(TOKENS), size=(count, length))
    ids[generator.random(ids.shape) < 0.01] = UNK
    ids[:, 0] = CLS
    ids[np.arange(count), generator.integers(20, 60, size=count)] = SEP
    ends = generator.integers(70, length, size=count) if padded else np.full(count, length - 1)
    ids[np.arange(count), ends] = SEP
    ids[np.arange(length) > ends[:, None]] = PAD
    return ids


def test_vocabulary_knows_what_is_ordinary(vocabulary: Vocabulary) -> None:
    assert np.flatnonzero(~vocabulary.ordinary).tolist() == list(range(FIRST))
    assert np.flatnonzero(vocabulary.continues_word).tolist() == list(range(FIRST + WORDS, len(TOKENS)))


def test_vocabulary_of_a_tokenizer(vocabulary: Vocabulary) -> None:
    read = Vocabulary.from_tokenizer(Tokenizer.from_vocab(TOKENS))
    assert (read.cls_id, read.sep_id, read.pad_id, read.mask_id) == (CLS, SEP, PAD, MASK)
    assert np.array_equal(read.ordinary, vocabulary.ordinary)
    assert np.array_equal(read.continues_word, vocabulary.continues_word)


@pytest.mark.parametrize("masking", MASKINGS.values(), ids=MASKINGS.keys())
def test_statistics_over_100_000_tokens(vocabulary: Vocabulary, masking: Masking) -> None:
    ids = rows(2000)
    ordinary = np.isin(ids, np.arange(FIRST, len(TOKENS)))
    assert ordinary.sum() > 100_000
    replaced, places, labels = mask_tokens(ids, vocabulary, masking, generator_at(0))

    assert len(places) / ordinary.sum() == pytest.approx(0.15, abs=0.002)
    seen = replaced.ravel()[places]
    assert (seen == MASK).mean() == pytest.approx(0.8, abs=0.01)
    # One replacement in 995 draws the token that stood there.
    assert (seen == labels).mean() == pytest.approx(0.1 + 0.1 / 995, abs=0.01)
    others = seen[(seen != MASK) & (seen != labels)]
    assert len(others) / len(places) == pytest.approx(0.1 * 994 / 995, abs=0.01)

    assert ordinary.ravel()[places].all()
    assert np.isin(others, np.arange(FIRST, len(TOKENS))).all()
    assert len(np.unique(others)) > 0.8 * (len(TOKENS) - FIRST)
    assert np.array_equal(labels, ids.ravel()[places])
    assert (np.diff(places) > 0).all()
    untouched = np.ones(ids.size, dtype=bool)
    untouched[places] = False
    assert np.array_equal(replaced.ravel()[untouched], ids.ravel()[untouched])


def test_every_token_has_the_same_chance(vocabulary: Vocabulary) -> None:
    ids = rows(4000, padded=False)
    for masking in MASKINGS.values():
        chosen = choose_tokens(ids, vocabulary, masking, generator_at(1))
        ordinary = vocabulary.ordinary[ids]
        by_column = chosen.sum(0)[1:-1] / ordinary.sum(0)[1:-1]
        # Standard deviation of a share of 4,000 is 0.0057.
        assert by_column.min() > 0.15 - 5 * 0.0057
        assert by_column.max() < 0.15 + 5 * 0.0057


def test_counts_are_rounded_so_that_nothing_is_lost(vocabulary: Vocabulary) -> None:
    ids = rows(32)
    for seed in range(20):
        chosen = choose_tokens(ids, vocabulary, Masking(), generator_at(seed))
        exact = 0.15 * vocabulary.ordinary[ids].sum(axis=1)
        assert (np.abs(chosen.sum(axis=1) - exact) <= 1).all()
        assert abs(chosen.sum() - exact.sum()) <= 1


def test_small_batches_are_masked_at_the_same_rate(vocabulary: Vocabulary) -> None:
    """One row of 10 tokens has a share of 1.5: half of the time 1, half of the time 2."""
    ids = np.full((1, 10), FIRST)
    counts = [choose_tokens(ids, vocabulary, Masking(), generator_at(seed)).sum() for seed in range(2000)]
    assert set(counts) == {1, 2}
    assert np.mean(counts) == pytest.approx(1.5, abs=0.05)


def test_words_are_masked_whole(vocabulary: Vocabulary) -> None:
    ids = rows(500)
    for masking in (MASKINGS["whole words"], MASKINGS["n-grams of whole words"]):
        chosen = choose_tokens(ids, vocabulary, masking, generator_at(2))
        both = vocabulary.ordinary[ids[:, 1:]] & vocabulary.ordinary[ids[:, :-1]]
        inside = both & vocabulary.continues_word[ids[:, 1:]]
        assert inside.sum() > 1000
        assert (chosen[:, 1:] == chosen[:, :-1])[inside].all()
    plain = choose_tokens(ids, vocabulary, Masking(), generator_at(2))
    assert not (plain[:, 1:] == plain[:, :-1])[inside].all()


def test_ngrams_have_lengths_in_proportion_to_1_over_n(vocabulary: Vocabulary) -> None:
    """So few are chosen, in rows so long, that hardly two touch."""
    ids = np.random.default_rng(0).integers(FIRST, FIRST + WORDS, size=(200, 4096))
    chosen = choose_tokens(ids, vocabulary, Masking(rate=0.01, max_ngram=3), generator_at(3))
    edges = np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(int), axis=1)
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    shares = np.bincount(lengths, minlength=4)[1:4] / len(lengths)
    assert len(lengths) > 4000
    np.testing.assert_allclose(shares, np.array([1, 1 / 2, 1 / 3]) / (1 + 1 / 2 + 1 / 3), atol=0.03)


def test_ngrams_do_not_reach_across_a_separator(vocabulary: Vocabulary) -> None:
    """With nearly every token masked, a block across the separator would tie the chances of its two sides together."""
    ids = np.full((4000, 3), FIRST)
    ids[:, 1] = SEP
    chosen = choose_tokens(ids, vocabulary, Masking(rate=0.5, max_ngram=3), generator_at(4))
    # Each row has two ordinary tokens and a share of 1: one of them, never both, never none.
    assert (chosen[:, 0] != chosen[:, 2]).all()
    assert chosen[:, 0].mean() == pytest.approx(0.5, abs=0.05)


def test_result_depends_on_the_generator_alone(vocabulary: Vocabulary) -> None:
    ids = rows(8)
    one, two, other = (mask_tokens(ids, vocabulary, Masking(), generator_at(5, step)) for step in (1, 1, 2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(one[1], other[1])


def test_a_row_without_ordinary_tokens(vocabulary: Vocabulary) -> None:
    ids = np.array([[CLS, SEP, SEP, PAD]])
    replaced, places, labels = mask_tokens(ids, vocabulary, Masking(), generator_at(6))
    assert np.array_equal(replaced, ids)
    assert len(places) == len(labels) == 0


def test_streams_of_addresses_differ() -> None:
    draws = {generator_at(*address).integers(1 << 60) for address in [(0,), (1,), (0, 0), (0, 1), (0, 0, 0), (0, 1, 0)]}
    assert len(draws) == 6


@pytest.mark.parametrize(("field", "value"), [("rate", 0.0), ("rate", 1.0), ("max_ngram", 0)])
def test_bad_settings_are_named(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        Masking(**{field: value})
