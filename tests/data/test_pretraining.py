"""Batches for pretraining: what they hold, their statistics, and that only seed and step decide them."""

from __future__ import annotations

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeezebert.data.masking import Masking, Vocabulary
from squeezebert.data.pretraining import PretrainingBatch, PretrainingSource
from squeezebert.data.shards import Corpus, CorpusWriter
from squeezebert.errors import InputError

PAD, UNK, CLS, SEP, MASK = 0, 1, 2, 3, 4
TOKENS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *(f"w{i}" for i in range(3000)),
    *(f"##p{i}" for i in range(995)),
]
VOCABULARY = Vocabulary.from_tokens(
    TOKENS, cls_id=CLS, sep_id=SEP, pad_id=PAD, mask_id=MASK, special_ids=frozenset(range(5))
)


@dataclass
class Text:
    """A corpus in memory."""

    tokens: np.ndarray
    sentence_offsets: np.ndarray
    document_offsets: np.ndarray


def text(documents: int, sentences: float, *, seed: int = 0) -> Text:
    """Documents of about so many sentences, at least one, of about 25 tokens."""
    generator = np.random.default_rng(seed)
    counts = np.maximum(generator.lognormal(np.log(sentences), 0.7, size=documents), 1).astype(np.int64)
    lengths = np.clip(generator.lognormal(3.0, 0.6, size=counts.sum()), 1, 400).astype(np.int64)
    tokens = generator.integers(5, len(TOKENS), size=lengths.sum()).astype(np.uint16)
    tokens[generator.random(len(tokens)) < 0.005] = UNK
    return Text(tokens, np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([[0], np.cumsum(counts)]))


BOOKS = text(60, 400)
STUBS = text(8000, 6)


def source(corpus: Any = BOOKS, **changes: Any) -> PretrainingSource:
    return PretrainingSource(corpus, VOCABULARY, **({"length": 128, "batch_size": 64, "seed": 1} | changes))


def assert_equal(one: PretrainingBatch, other: PretrainingBatch) -> None:
    for field in dataclasses.fields(PretrainingBatch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert (a is None) == (b is None), field.name
        assert a is None or np.array_equal(a, b), field.name


def unmasked(batch: PretrainingBatch) -> np.ndarray:
    ids = batch.input_ids.copy()
    ids.ravel()[batch.masked_positions] = batch.masked_labels
    return ids


@pytest.mark.parametrize("mlm_only", [False, True])
@pytest.mark.parametrize("corpus", [BOOKS, STUBS], ids=["books", "stubs"])
def test_rows_are_passages_of_one_document(corpus: Text, mlm_only: bool) -> None:
    one = source(corpus, mlm_only=mlm_only)
    starts = corpus.sentence_offsets[corpus.document_offsets]
    for step in range(20):
        batch = one.batch(step)
        ids, row = unmasked(batch), 0
        for group in one.groups(step):
            for member, document in enumerate(group.documents):
                expected, types = [CLS], [0]
                for index, (begin, stop) in enumerate(group.segments):
                    assert starts[document] <= begin[member] < stop[member] <= starts[document + 1]
                    passage = corpus.tokens[begin[member] : stop[member]]
                    expected += [*passage.tolist(), SEP]
                    types += [index] * (len(passage) + 1)
                padding = ids.shape[1] - len(expected)
                assert ids[row].tolist() == expected + [PAD] * padding
                assert batch.token_type_ids[row].tolist() == types + [0] * padding
                if batch.attention_mask is not None:
                    assert batch.attention_mask[row].tolist() == [1] * len(expected) + [0] * padding
                else:
                    assert padding == 0
                row += 1
        assert row == 64
        if mlm_only:
            assert batch.sentence_order_labels is None
        else:
            labels = [group.sentence_order_labels for group in one.groups(step)]
            assert np.array_equal(batch.sentence_order_labels, np.concatenate(labels))


def test_statistics_over_100_000_tokens() -> None:
    one = source(batch_size=256)
    tokens = masked = ordinary = places = 0
    labels, seen, hidden = [], [], []
    for step in range(80):
        batch = one.batch(step)
        tokens += batch.tokens
        places += batch.input_ids.size
        ordinary += int(VOCABULARY.ordinary[unmasked(batch)].sum())
        masked += len(batch.masked_positions)
        seen.append(batch.input_ids.ravel()[batch.masked_positions])
        hidden.append(batch.masked_labels)
        labels.append(batch.sentence_order_labels)
    assert tokens > 1_000_000
    assert masked / ordinary == pytest.approx(0.15, abs=0.002)
    shown, true = np.concatenate(seen), np.concatenate(hidden)
    assert (true >= 5).all()
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert (shown == true).mean() == pytest.approx(0.1, abs=0.01)
    assert ((shown != MASK) & (shown >= 5) & (shown != true)).mean() == pytest.approx(0.1, abs=0.01)
    # 20,480 coins: a standard deviation of 0.35 points.
    assert np.concatenate([each for each in labels if each is not None]).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("length", [128, 512])
@pytest.mark.parametrize("corpus", [BOOKS, STUBS], ids=["books", "stubs"])
@pytest.mark.parametrize("mlm_only", [False, True])
def test_padding_is_under_3_percent(corpus: Text, length: int, mlm_only: bool) -> None:
    one = source(corpus, length=length, mlm_only=mlm_only)
    tokens = places = 0
    for step in range(one.steps_per_epoch):
        for part in range(2):
            batch = one.batch(step, slice(32 * part, 32 * part + 32))
            tokens += batch.tokens
            places += batch.input_ids.size
    assert 1 - tokens / places < 0.03


def test_full_rows_have_no_padding_and_need_no_mask() -> None:
    one = source(short_probability=0.0, unpad=True)
    for step in range(5):
        batch = one.batch(step)
        assert batch.input_ids.shape == (64, 128)
        assert batch.tokens == 64 * 128
        assert batch.attention_mask is None
        assert batch.token_indices is None


def test_token_indices_are_the_places_without_padding() -> None:
    one = source(STUBS, unpad=True)
    padded = [batch for batch in map(one.batch, range(10)) if batch.attention_mask is not None]
    assert padded
    for batch in padded:
        assert batch.attention_mask is not None
        assert batch.token_indices is not None
        assert np.array_equal(batch.token_indices, np.flatnonzero(batch.attention_mask))
        assert len(batch.token_indices) == batch.tokens
        assert np.isin(batch.masked_positions, batch.token_indices).all()


def test_one_group_in_ten_is_shorter() -> None:
    one = source(batch_size=320, group_size=4)
    widths = np.array([group.width for step in range(30) for group in one.groups(step)])
    assert (widths < 128).mean() == pytest.approx(0.1, abs=0.02)
    shorter = widths[widths < 128]
    assert shorter.min() == 16
    assert shorter.max() == 120
    assert not (shorter % 8).any()


def test_the_longest_groups_come_first() -> None:
    one = source(STUBS, batch_size=256)
    for step in range(5):
        widths = [group.width for group in one.groups(step)]
        assert widths == sorted(widths, reverse=True)


def test_parts_of_a_step_are_its_rows() -> None:
    one = source(STUBS, batch_size=96)
    for step in range(4):
        whole = one.batch(step)
        for start, stop in [(0, 32), (32, 96), (5, 40), (50, 51)]:
            part = source(STUBS, batch_size=96).batch(step, slice(start, stop))
            width = part.input_ids.shape[1]
            assert np.array_equal(part.input_ids, whole.input_ids[start:stop, :width])
            assert (whole.input_ids[start:stop, width:] == PAD).all()
            assert np.array_equal(part.token_type_ids, whole.token_type_ids[start:stop, :width])
            full = whole.input_ids.shape[1]
            inside = (whole.masked_positions >= start * full) & (whole.masked_positions < stop * full)
            assert np.array_equal(
                part.masked_positions // width * full + part.masked_positions % width,
                whole.masked_positions[inside] - start * full,
            )
            assert np.array_equal(part.masked_labels, whole.masked_labels[inside])
            assert whole.sentence_order_labels is not None
            assert np.array_equal(part.sentence_order_labels, whole.sentence_order_labels[start:stop])


def test_steps_may_be_asked_for_in_any_order() -> None:
    """A resumed run starts in the middle; here it goes back and forth over the borders of epochs as well."""
    one, steps = source(STUBS), list(range(0, 800, 19))
    ahead = {step: one.batch(step) for step in steps}
    assert steps[-1] > 2 * one.steps_per_epoch
    other = source(STUBS)
    for step in np.random.default_rng(0).permutation(steps).tolist():
        assert_equal(other.batch(step), ahead[step])


def batches(source: PretrainingSource, steps: list[int]) -> list[PretrainingBatch]:
    return [source.batch(step) for step in steps]


def test_worker_processes_give_the_same_batches(tmp_path: Path) -> None:
    one = source(saved(STUBS, tmp_path))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(batches, [one, one], [[0, 2, 4], [1, 3, 5]]))
    for worker, steps in enumerate(([0, 2, 4], [1, 3, 5])):
        for batch, step in zip(results[worker], steps, strict=True):
            assert_equal(batch, one.batch(step))


def saved(corpus: Text, folder: Path) -> Corpus:
    """The same corpus on disk, in several shards."""
    with CorpusWriter(folder, len(TOKENS), shard_tokens=100_000) as writer:
        for first, end in zip(corpus.document_offsets[:-1], corpus.document_offsets[1:], strict=True):
            begin, stop = corpus.sentence_offsets[first], corpus.sentence_offsets[end]
            lengths = np.diff(corpus.sentence_offsets[first : end + 1])
            writer.add("train", corpus.tokens[begin:stop], lengths)
        writer.finish(vocabulary={"size": len(TOKENS), "sha256": ""})
    return Corpus.open(folder)


def test_shards_on_disk_give_the_same_batches(tmp_path: Path) -> None:
    on_disk = saved(BOOKS, tmp_path)
    assert len(list(tmp_path.glob("train-*.tokens.bin"))) > 2
    for step in range(3):
        assert_equal(source(on_disk).batch(step), source().batch(step))


def test_seed_step_and_settings_change_the_batch() -> None:
    reference = source().batch(3)
    for changed in (
        source().batch(4),
        source(seed=2).batch(3),
        source(masking=Masking(whole_word=True)).batch(3),
        source(mlm_only=True).batch(3),
    ):
        assert not np.array_equal(changed.input_ids, reference.input_ids)


def epoch_of(one: PretrainingSource, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Documents of an epoch's rows in order, and how often each token of the corpus is seen."""
    documents, changes = [], np.zeros(int(one.corpus.sentence_offsets[-1]) + 1, np.int64)
    for step in range(epoch * one.steps_per_epoch, (epoch + 1) * one.steps_per_epoch):
        for group in one.groups(step):
            documents.append(group.documents)
            for starts, stops in group.segments:
                np.add.at(changes, starts, 1)
                np.add.at(changes, stops, -1)
    return np.concatenate(documents), np.cumsum(changes[:-1])


@pytest.mark.parametrize("corpus", [BOOKS, STUBS], ids=["books", "stubs"])
def test_an_epoch_passes_over_all_documents_in_a_new_order_with_new_cuts(corpus: Text) -> None:
    one = source(corpus, batch_size=32, short_probability=0.0)
    (documents, seen), (documents_later, seen_later) = epoch_of(one, 0), epoch_of(one, 1)
    usable = np.flatnonzero(np.diff(corpus.document_offsets) > 1)
    assert set(documents.tolist()) == set(documents_later.tolist()) == set(usable.tolist())
    assert one.dropped_documents == len(corpus.document_offsets) - 1 - len(usable)
    assert not np.array_equal(documents, documents_later)
    # Shortening pairs loses tokens of an epoch; other cuts find them in another.
    assert (seen > 0).mean() > 0.75
    assert ((seen > 0) | (seen_later > 0)).mean() > (seen > 0).mean() + 0.05
    # No part of the corpus is favoured: rows are spread over a document, whose tokens are seen about once.
    assert seen.max() <= 4
    sizes = np.diff(corpus.sentence_offsets[corpus.document_offsets])
    rows = np.bincount(documents, minlength=len(sizes))
    assert (np.abs(rows - sizes / 125)[rows > 3] <= 1.5).all()


def test_places_differ_from_epoch_to_epoch_and_from_document_to_document() -> None:
    """Two documents alike, of sentences of one token: rows lie exactly where they are placed."""
    tokens = np.full(20_000, 5)
    corpus = Text(tokens, np.arange(20_001), np.array([0, 10_000, 20_000]))
    one = source(corpus, batch_size=4, short_probability=0.0, mlm_only=True)
    starts = []
    for epoch in range(2):
        rows = [group for step in range(epoch * 40, epoch * 40 + 40) for group in one.groups(step)]
        begins = np.concatenate([group.segments[0][0] for group in rows])
        assert len(np.unique(begins)) == 2 * 79
        starts += [set(begins[begins < 10_000].tolist()), set((begins[begins >= 10_000] - 10_000).tolist())]
    distances = np.diff(sorted(starts[0]))
    # 79 rows to a document, their middles as far from each other, save where the first or last meets the edge.
    assert (np.abs(distances[1:-1] - 10_000 / 79) <= 1).all()
    for index, one_set in enumerate(starts):
        for other in starts[:index]:
            assert len(one_set & other) < 5


def test_short_documents_meet_others_in_another_epoch() -> None:
    one = source(STUBS, length=512, batch_size=32)
    company = [
        {frozenset(group.documents.tolist()) for step in range(first, first + 200) for group in one.groups(step)}
        for first in (0, one.steps_per_epoch)
    ]
    assert len(company[0] & company[1]) < 0.1 * len(company[0])


@pytest.mark.parametrize("corpus", [BOOKS, STUBS], ids=["books", "stubs"])
def test_pairs_in_both_orders(corpus: Text) -> None:
    one = source(corpus, both_orders=True)
    assert one.steps_per_epoch == pytest.approx(2 * source(corpus).steps_per_epoch, rel=0.01)
    seen = set()
    for step in range(20):
        for group in one.groups(step):
            (first_start, first_stop), (second_start, second_stop) = group.segments
            labels = group.sentence_order_labels
            assert labels is not None
            assert np.array_equal(labels[1::2], 1 - labels[::2])
            assert np.array_equal(group.documents[::2], group.documents[1::2])
            # The same two stretches in each: an odd room gives its odd token to the first.
            for mine, theirs in ((first_start, second_start), (first_stop, second_stop)):
                assert np.abs(mine[::2] - theirs[1::2]).max() <= 1
                assert np.abs(theirs[::2] - mine[1::2]).max() <= 1
            in_order = np.where(labels == 0, first_start < second_start, first_start > second_start)
            assert in_order.all()
            seen.update(labels[::2].tolist())
    assert seen == {0, 1}, "which of the two comes first is left to chance"
    batch = one.batch(3)
    assert len(batch.input_ids) == 64
    pairs = unmasked(batch).reshape(32, 2, -1)
    masks = np.zeros(batch.input_ids.size, bool)
    masks[batch.masked_positions] = True
    masks = masks.reshape(32, 2, -1)
    for one_row, other in pairs:
        assert len(np.setdiff1d(one_row, other)) <= 2, "the same tokens, but for an odd one"
    assert (masks[:, 0] != masks[:, 1]).any(axis=1).all(), "masks of their own"
    assert_equal(batch, one.batch(3))


@pytest.mark.parametrize("both_orders", [False, True])
@pytest.mark.parametrize("corpus", [BOOKS, STUBS], ids=["books", "stubs"])
def test_passages_overlap_at_first(corpus: Text, both_orders: bool) -> None:
    overlapping = source(corpus, both_orders=both_orders, overlap=5, overlap_steps=8)
    plain = source(corpus, both_orders=both_orders)
    shares = []
    for step in range(8):
        repeated = []
        for group in overlapping.groups(step):
            (first_start, first_stop), (second_start, second_stop) = group.segments
            swapped = group.sentence_order_labels == 1
            document_start = corpus.sentence_offsets[corpus.document_offsets[group.documents]]
            document_stop = corpus.sentence_offsets[corpus.document_offsets[group.documents + 1]]
            assert (document_start <= np.minimum(first_start, second_start)).all()
            assert (np.maximum(first_stop, second_stop) <= document_stop).all()
            assert ((first_stop - first_start) + (second_stop - second_start) <= group.width - 3).all()
            tokens = np.where(swapped, second_stop - first_start, first_stop - second_start)
            repeated.append(np.maximum(tokens, 0))
            if both_orders:
                assert np.array_equal(tokens[::2] > 0, tokens[1::2] > 0)
                assert np.abs(first_start[::2] - second_start[1::2]).max() <= 1
        share = np.concatenate(repeated) > 0
        assert np.concatenate(repeated).max() <= 5
        shares.append(share.mean())
        # Sixty-four pairs, or thirty-two.
        assert share.mean() == pytest.approx(1 - step / 8, abs=0.25)
    assert shares[0] == 1
    assert_equal(overlapping.batch(8), plain.batch(8))
    assert_equal(overlapping.batch(3), overlapping.batch(3))


def test_single_sentences_are_left_out_or_used_for_masking_only() -> None:
    corpus = Text(np.arange(5, 105), np.array([0, 40, 60, 80, 100]), np.array([0, 1, 3, 4]))
    pairs = source(corpus, batch_size=4)
    assert pairs.dropped_documents == 2
    assert {int(d) for step in range(5) for group in pairs.groups(step) for d in group.documents} == {1}
    masked = source(corpus, batch_size=4, mlm_only=True)
    assert masked.dropped_documents == 0
    assert {int(d) for step in range(5) for group in masked.groups(step) for d in group.documents} == {0, 1, 2}


def test_every_row_of_pairs_is_labelled() -> None:
    for step in range(5):
        labels = source(STUBS).batch(step).sentence_order_labels
        assert labels is not None
        assert set(labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 4}, "length"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"short_probability": 1.1}, "short_probability"),
        ({"group_size": 7}, "group_size"),
        ({"both_orders": True, "mlm_only": True}, "both_orders"),
        ({"both_orders": True, "batch_size": 63}, "both_orders"),
        ({"overlap": 3}, "overlap and overlap_steps"),
        ({"overlap_steps": 3}, "overlap and overlap_steps"),
        ({"overlap": -1, "overlap_steps": -1}, "overlap and overlap_steps"),
        ({"overlap": 3, "overlap_steps": 3, "mlm_only": True}, "overlap and overlap_steps"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        source(**changes)


def test_a_corpus_without_pairs_is_refused() -> None:
    corpus = Text(np.arange(5, 25), np.array([0, 10, 20]), np.array([0, 1, 2]))
    with pytest.raises(InputError, match="mlm_only"):
        source(corpus)


@pytest.mark.parametrize("rows", [slice(3, 3), slice(60, 99, 2), slice(64, 70)])
def test_rows_must_be_a_stretch(rows: slice) -> None:
    with pytest.raises(ValueError, match="rows"):
        source().batch(0, rows)


@pytest.mark.parametrize("length", [5, 16, 20])
def test_small_lengths_work(length: int) -> None:
    for mlm_only in (False, True):
        batch = source(length=length, batch_size=6, mlm_only=mlm_only).batch(0)
        assert batch.input_ids.shape == (6, length)
