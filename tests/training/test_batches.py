from __future__ import annotations

import numpy as np

from squeezebert.data.collate import collate
from squeezebert.data.examples import Example
from squeezebert.tokenizer import Tokenizer
from squeezebert.training.batches import EncodedExamples, EpochBatches

_TEXTS = [f"{'so ' * (number % 7)}fine" for number in range(50)]
_TOKENIZER = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "so", "fine", "not"])


def _examples(texts: list[str] = _TEXTS, pair: str | None = None, max_length: int = 16) -> EncodedExamples:
    examples = [Example(text, pair, number % 2) for number, text in enumerate(texts)]
    return EncodedExamples(examples, _TOKENIZER, max_length)


def test_a_batch_is_that_of_the_tokenizer_and_the_collator() -> None:
    indices = np.array([3, 49, 0])
    batch = _examples(pair="not so fine").collate(indices)
    encodings = _TOKENIZER.encode_batch([_TEXTS[i] for i in indices], ["not so fine"] * 3, max_length=16)
    expected = collate(encodings, [1, 1, 0], indices=indices, unpad=True)
    for name in ("input_ids", "attention_mask", "token_type_ids", "labels", "token_indices", "indices"):
        assert np.array_equal(getattr(batch, name), getattr(expected, name)), name


def test_what_reaches_the_limit_is_counted() -> None:
    # [CLS] + n * so + fine + [SEP]: 3 to 9 tokens, and lengths 7, 8, 9 are cut to 7.
    examples = _examples(max_length=7)
    assert examples.lengths.max() == 7
    assert examples.truncated == sum(number % 7 >= 4 for number in range(50))


def test_every_epoch_takes_every_example_once_in_a_new_order() -> None:
    batches = EpochBatches(_examples(), 8, seed=0)
    assert batches.steps_per_epoch == 7
    epochs = [np.concatenate([batches.examples(7 * epoch + step) for step in range(7)]) for epoch in range(2)]
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), np.arange(50))
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_step_depends_on_seed_and_step_alone() -> None:
    walked = EpochBatches(_examples(), 8, seed=3)
    before = [walked.examples(step) for step in range(14)]
    assert np.array_equal(EpochBatches(_examples(), 8, seed=3).examples(10), before[10])
    others = [EpochBatches(_examples(), 8, seed=4).examples(step) for step in range(14)]
    assert any(not np.array_equal(a, b) for a, b in zip(before, others, strict=True))


def test_the_fingerprint_tells_any_change() -> None:
    original = _examples().fingerprint()
    assert _examples().fingerprint() == original
    assert _examples(["not fine", *_TEXTS[1:]]).fingerprint() != original
    assert _examples([*_TEXTS[1:], _TEXTS[0]]).fingerprint() != original
    relabelled = EncodedExamples([Example(text, None, 0) for text in _TEXTS], _TOKENIZER, 16)
    assert relabelled.fingerprint() != original
