from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezebert.errors import InputError
from squeezebert.runtime.predictor import Predictor, probabilities, to_predictions
from squeezebert.tokenizer import Tokenizer

WORDS = [f"w{i}" for i in range(50)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])


@dataclass
class Spy:
    """An engine whose logits tell what it was given: sum of ids, number of tokens, tokens of the second text."""

    kind: Any = "single_label"
    labels: tuple[str, ...] = ("sum", "length", "second")
    max_length: int = 64
    default_length: int = 32
    pair: bool | None = None
    ragged: bool = False
    sizes: list[tuple[int, ...]] = field(default_factory=list)

    def save(self, folder: Any, tokenizer: Any) -> None: ...

    def run(self, batch: Any) -> Any:
        self.sizes.append(batch.input_ids.shape)
        mask = batch.attention_mask
        columns = (batch.input_ids * mask, mask, batch.token_type_ids * mask)
        return np.stack([column.sum(axis=1) for column in columns], axis=1).astype(np.float32)


def expected(tokenizer: Tokenizer, text: str, pair: str | None = None, max_length: int = 32) -> list[float]:
    encoding = tokenizer.encode(text, pair, max_length=max_length)
    return [float(sum(encoding.input_ids)), float(len(encoding.input_ids)), float(sum(encoding.token_type_ids))]


@given(
    lengths=st.lists(st.integers(0, 40), max_size=40),
    batch_size=st.sampled_from([1, 3, 8, 2000]),
    pairs=st.booleans(),
)
def test_every_row_gets_its_own_logits_in_order(lengths: list[int], batch_size: int, pairs: bool) -> None:
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    generator = random.Random(0)
    rows = [(" ".join(generator.choices(WORDS, k=k)), generator.choice(WORDS) if pairs else None) for k in lengths]
    predictor = Predictor(Spy(), tokenizer, batch_size=batch_size)
    assert [row.tolist() for row in predictor.logits(iter(rows))] == [expected(tokenizer, *row) for row in rows]


def test_rows_with_and_without_a_second_text_mix(tokenizer: Tokenizer) -> None:
    rows = [("w1 w2", None), ("w1", "w3 w4"), ("w9", None)]
    logits = [row.tolist() for row in Predictor(Spy(), tokenizer).logits(rows)]
    assert logits == [expected(tokenizer, *row) for row in rows]


def test_sorted_windows_pad_little(tokenizer: Tokenizer) -> None:
    generator = random.Random(1)
    rows = [" ".join(generator.choices(WORDS, k=generator.randint(1, 30))) for _ in range(1500)]
    spy = Spy()
    Predictor(spy, tokenizer, batch_size=16).predict(rows)
    grid = sum(batch * tokens for batch, tokens in spy.sizes)
    real = sum(len(tokenizer.encode(row, max_length=32).input_ids) for row in rows)
    assert max(batch for batch, _ in spy.sizes) == 16
    assert grid / real < 1.3  # widths are multiples of 8; in the order given it is 1.8


def test_an_engine_of_ragged_batches_gets_no_padding_to_like_shapes(tokenizer: Tokenizer) -> None:
    spy = Spy(ragged=True)
    rows = [("w1 " * count, None) for count in (9, 1, 6)]
    logits = [row.tolist() for row in Predictor(spy, tokenizer).logits(rows)]
    assert spy.sizes == [(3, 11)]  # the longest, with its two special tokens
    assert logits == [expected(tokenizer, text) for text, _ in rows]


def test_stream_reads_one_window_ahead_and_keeps_nothing(tokenizer: Tokenizer) -> None:
    read = 0

    def endless() -> Iterator[tuple[str, None]]:
        nonlocal read
        while True:
            read += 1
            yield (WORDS[read % 50] * 20, None)

    predictor = Predictor(Spy(), tokenizer, batch_size=4)
    stream = predictor.stream(endless())
    for _ in range(3 * predictor.window):
        next(stream)
    assert read == 3 * predictor.window
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(5 * predictor.window):
        next(stream)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2 * 2**20  # one window's predictions come to about half of this, five windows' to more


def test_what_precedes_a_bad_row_is_predicted(tokenizer: Tokenizer) -> None:
    def rows() -> Iterator[tuple[str, None]]:
        yield ("w1", None)
        yield ("w2 w3", None)
        raise InputError("rows.csv:3: bad")

    logits = Predictor(Spy(), tokenizer).logits(rows())
    assert [next(logits).tolist(), next(logits).tolist()] == [expected(tokenizer, text) for text in ("w1", "w2 w3")]
    with pytest.raises(InputError, match=r"rows\.csv:3: bad"):
        next(logits)


@pytest.mark.parametrize("max_length", [61, 64, 500])
def test_padding_stays_within_the_positions(tokenizer: Tokenizer, max_length: int) -> None:
    spy = Spy(max_length=max_length)
    rows = [("w1 " * 600, None), ("w2", None)]
    logits = [row.tolist() for row in Predictor(spy, tokenizer, max_length=max_length).logits(rows)]
    assert spy.sizes == [(2, max_length)]
    assert logits == [expected(tokenizer, text, max_length=max_length) for text, _ in rows]


@pytest.mark.parametrize(
    ("pair", "rows", "message"),
    [
        (True, [("w1", "w2"), ("w3", None)], "finetuned on pairs of texts; give each text its second one"),
        (False, [("w1", None), ("w3", "")], "finetuned on single texts; leave out the second texts"),
    ],
)
def test_texts_of_the_other_kind_are_refused(tokenizer: Tokenizer, pair: bool, rows: Any, message: str) -> None:
    predictor = Predictor(Spy(pair=pair), tokenizer)
    with pytest.raises(InputError, match=message):
        list(predictor.logits(rows))
    assert len(predictor.predict(*[[part] for part in rows[0]])) == 1
    # Of a published checkpoint it is not known.
    assert len(list(Predictor(Spy(), tokenizer).logits(rows))) == 2


def test_window_is_whole_batches(tokenizer: Tokenizer) -> None:
    for batch_size in (1, 7, 32, 1024, 5000):
        assert Predictor(Spy(), tokenizer, batch_size=batch_size).window % batch_size == 0


def test_long_texts_are_cut(tokenizer: Tokenizer) -> None:
    text = " ".join(WORDS * 3)
    for max_length in (None, 5, 64):
        [logits] = Predictor(Spy(), tokenizer, max_length=max_length).logits([(text, None)])
        assert logits.tolist() == expected(tokenizer, text, max_length=max_length or 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"batch_size": 0}, "batch size"), ({"max_length": 65}, "model's 64, not 65"), ({"max_length": 2}, "not 2")],
)
def test_settings_out_of_range_are_refused(tokenizer: Tokenizer, settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Predictor(Spy(), tokenizer, **settings)


@pytest.mark.parametrize(
    ("texts", "pairs", "message"),
    [
        (["a", "b"], ["c"], "2 texts, but 1 second texts"),
        (["a", None], None, r"texts\[1\] is not a string but NoneType"),
        (["a"], [3], r"pairs\[0\] is not a string but int: 3"),
    ],
)
def test_texts_that_are_none_are_refused(tokenizer: Tokenizer, texts: Any, pairs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Predictor(Spy(), tokenizer).predict(texts, pairs)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_refused(tokenizer: Tokenizer, value: float) -> None:
    @dataclass
    class Diverged(Spy):
        def run(self, batch: Any) -> Any:
            logits = super().run(batch)
            logits[0, 1] = value
            return logits

    with pytest.raises(InputError, match="outputs are not finite"):
        Predictor(Diverged(), tokenizer).predict([WORDS[0]])


def test_single_label_is_softmax() -> None:
    [prediction] = to_predictions("single_label", ("a", "b", "c"), np.log([[1.0, 5.0, 4.0]]))
    assert (prediction.label, prediction.score) == ("b", pytest.approx(0.5))
    assert prediction.scores == pytest.approx({"a": 0.1, "b": 0.5, "c": 0.4})


def test_multi_label_is_a_sigmoid_each() -> None:
    logits = np.array([[np.log(3), 0.0, -np.log(4)], [-1.0, -2.0, -3.0]])
    both, none = to_predictions("multi_label", ("a", "b", "c"), logits)
    assert both.label == ("a", "b")
    assert both.score == pytest.approx(0.75)
    assert both.scores == pytest.approx({"a": 0.75, "b": 0.5, "c": 0.2})
    assert none.label == ()
    assert none.score == pytest.approx(1 / (1 + np.e))


def test_regression_is_the_value() -> None:
    [prediction] = to_predictions("regression", ("LABEL_0",), np.array([[3.25]], dtype=np.float32))
    assert (prediction.label, prediction.score, dict(prediction.scores)) == (3.25, 3.25, {})


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_huge_logits_neither_overflow_nor_warn(kind: Any) -> None:
    extreme = np.array([[-1e30, 1e30], [3e38, -3e38]], dtype=np.float32)
    assert probabilities(kind, extreme).tolist() == [[0.0, 1.0], [1.0, 0.0]]
