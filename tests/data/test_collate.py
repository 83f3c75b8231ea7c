from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezebert.data.collate import collate, length_batches, places_to_compute, sorted_batches
from squeezebert.tokenizer import Encoding


def _encoding(*ids: int, second: int = 0) -> Encoding:
    """An encoding whose last ``second`` tokens belong to the second text."""
    return Encoding(list(ids), [0] * (len(ids) - second) + [1] * second, None)


def test_rows_are_padded_at_the_end() -> None:
    batch = collate([_encoding(5, 6, 7, second=1), _encoding(8)], [1, 0], indices=[40, 2], pad_id=9)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.token_type_ids.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0]
    assert batch.indices.tolist() == [40, 2]
    assert batch.token_indices is None
    arrays = (batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.labels, batch.indices)
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}


@pytest.mark.parametrize(("multiple", "width"), [(1, 3), (2, 4), (3, 3), (8, 8)])
def test_width_is_rounded_up(multiple: int, width: int) -> None:
    batch = collate([_encoding(5, 6, 7), _encoding(8)], indices=[0, 1], pad_to_multiple=multiple)
    assert batch.input_ids.shape == (2, width)
    assert batch.attention_mask.sum() == 4
    assert batch.labels is None


@pytest.mark.parametrize(("max_width", "width"), [(5, 5), (6, 6), (8, 8), (9, 8), (None, 8)])
def test_width_is_not_rounded_beyond_the_positions(max_width: int | None, width: int) -> None:
    rows = [_encoding(5, 6, 7, 8, 9), _encoding(8)]
    batch = collate(rows, indices=[0, 1], pad_to_multiple=8, max_width=max_width, unpad=True)
    assert batch.input_ids.shape == (2, width)
    with pytest.raises(ValueError, match="an encoding of 5 tokens, where 4 are the most"):
        collate(rows, indices=[0, 1], max_width=4)


def test_token_indices_name_the_tokens_that_are_not_padding() -> None:
    rows = [[5, 6, 7], [8], [9, 10]]
    batch = collate([_encoding(*row) for row in rows], indices=[0, 1, 2], pad_to_multiple=4, unpad=True)
    assert batch.token_indices is not None
    assert batch.token_indices.tolist() == [0, 1, 2, 4, 8, 9]
    assert batch.input_ids.reshape(-1)[batch.token_indices].tolist() == [5, 6, 7, 8, 9, 10]


def test_places_hold_every_token_and_come_in_few_numbers() -> None:
    generator = np.random.default_rng(0)
    numbers = set()
    for _ in range(2000):
        lengths = generator.integers(2, generator.integers(3, 130), size=generator.integers(1, 33))
        mask = (np.arange(-(-lengths.max() // 8) * 8) < lengths[:, None]).astype(np.int64)
        places = places_to_compute(mask)
        if places is None:
            places = np.arange(mask.size)
            assert mask.sum() > mask.size * 15 / 17
        assert (np.diff(places) > 0).all()
        assert mask.ravel()[places].sum() == lengths.sum()
        assert len(places) <= lengths.sum() * 17 / 16 or len(places) == mask.size
        if len(places) < mask.size:
            numbers.add(len(places))
    assert len(numbers) <= 16 * 12  # sixteen to an octave, up to 4096


def test_a_padding_id_inside_a_text_is_a_token() -> None:
    batch = collate([_encoding(0, 0), _encoding(0)], indices=[0, 1], unpad=True)
    assert batch.attention_mask.tolist() == [[1, 1], [1, 0]]
    assert batch.token_indices is not None
    assert batch.token_indices.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "dtype"), [([2, 0], np.int64), ([2.5, 0.0], np.float32), ([(1, 0, 1), (0, 0, 0)], np.float32)]
)
def test_labels_have_the_type_their_loss_wants(labels: list[int], dtype: type) -> None:
    batch = collate([_encoding(1), _encoding(2)], labels, indices=[0, 1])
    assert batch.labels is not None
    assert batch.labels.dtype == dtype
    assert batch.labels.tolist() == np.asarray(labels).tolist()


def test_numbers_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        collate([], indices=[])
    with pytest.raises(ValueError, match="as many"):
        collate([_encoding(1)], [1, 0], indices=[0])
    with pytest.raises(ValueError, match="as many"):
        collate([_encoding(1)], indices=[0, 1])


_LENGTHS = st.lists(st.integers(1, 512), max_size=300)


@given(_LENGTHS, st.integers(1, 40), st.integers(0, 2**32), st.integers(0, 20))
def test_every_example_is_in_one_batch(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    for batches in (
        length_batches(lengths, batch_size, seed=seed, epoch=epoch),
        sorted_batches(lengths, batch_size),
    ):
        assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(lengths)))
        sizes = sorted((len(batch) for batch in batches), reverse=True)
        # All are full but one, which holds the rest.
        assert sizes == [batch_size] * (len(lengths) // batch_size) + [
            rest for rest in [len(lengths) % batch_size] if rest
        ]


def _flat(batches: list[np.ndarray]) -> list[int]:
    return np.concatenate(batches).tolist()


def test_epochs_and_seeds_differ_and_repeat() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    first = _flat(length_batches(lengths, 16, seed=3, epoch=1))
    assert first == _flat(length_batches(list(lengths), 16, seed=3, epoch=1))
    assert first != _flat(length_batches(lengths, 16, seed=3, epoch=2))
    assert first != _flat(length_batches(lengths, 16, seed=4, epoch=1))
    # (seed, epoch) is a pair, not a sum.
    assert _flat(length_batches(lengths, 16, seed=1, epoch=3)) != first


def test_training_batches_waste_little_on_padding_and_are_still_shuffled() -> None:
    generator = np.random.default_rng(7)
    lengths = generator.geometric(1 / 25, 20_000) + 2
    batches = length_batches(lengths, 32, seed=0, epoch=0)

    def padded(groups: list[np.ndarray]) -> float:
        return sum(len(group) * int(lengths[group].max()) for group in groups) / int(lengths.sum())

    random_order = generator.permutation(len(lengths))
    assert padded(batches) < 1.15
    assert padded([random_order[start : start + 32] for start in range(0, 20_000, 32)]) > 3
    # Neither position in the file nor length drifts over the epoch: correlation of 625 batches' means with their order.
    order = np.arange(len(batches))
    for means in ([group.mean() for group in batches], [lengths[group].mean() for group in batches]):
        assert abs(np.corrcoef(order, means)[0, 1]) < 4 / np.sqrt(len(batches))


def test_company_changes_from_epoch_to_epoch() -> None:
    lengths = np.random.default_rng(1).integers(5, 60, 5000)
    together = [
        {frozenset(batch.tolist()) for batch in length_batches(lengths, 16, seed=0, epoch=epoch)} for epoch in (0, 1)
    ]
    assert not together[0] & together[1]


def test_inference_batches_go_from_long_to_short() -> None:
    assert [batch.tolist() for batch in sorted_batches([3, 9, 3, 1, 9], 2)] == [[1, 4], [0, 2], [3]]


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_must_be_positive(batch_size: int) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        length_batches([1], batch_size, seed=0, epoch=0)
    with pytest.raises(ValueError, match="batch_size"):
        sorted_batches([1], batch_size)
