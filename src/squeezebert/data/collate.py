"""Encodings -> batches of NumPy arrays, and which examples share a batch.

Shapes: ``B`` examples, ``T`` tokens of the longest one, ``N`` tokens of the batch without padding, ``K`` labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.data.examples import Label

if TYPE_CHECKING:
    from squeezebert.tokenizer import Encoding

Int64 = NDArray[np.int64]


@dataclass(slots=True)
class Batch:
    """What a model reads in one step."""

    input_ids: Int64
    """Token ids, padded at the end. *Shape:* ``[B, T]``."""
    attention_mask: Int64
    """1 for a token, 0 for padding. *Shape:* ``[B, T]``."""
    token_type_ids: Int64
    """0 for the first text, 1 for the second, 0 for padding. *Shape:* ``[B, T]``."""
    labels: NDArray[Any] | None
    """Class indices int64 ``[B]``, values float32 ``[B]``, or 0 and 1 as float32 ``[B, K]``; None: unlabelled."""
    token_indices: Int64 | None
    """Places ``b * T + t`` that a model which skips padding computes, ascending: every token, and a little padding
    (:func:`places_to_compute`); None: the whole grid. *Shape:* ``[N]``."""
    indices: Int64
    """Positions of the examples in their data set. *Shape:* ``[B]``."""


def collate(
    encodings: Sequence[Encoding],
    labels: Sequence[Label] | None = None,
    *,
    indices: Sequence[int] | Int64,
    pad_id: int = 0,
    pad_to_multiple: int = 1,
    max_width: int | None = None,
    unpad: bool = False,
) -> Batch:
    """Stack encodings into one batch.

    Args:
        encodings: The examples, tokenized.
        labels: Their labels, all of one kind.
        indices: Their positions in the data set.
        pad_id: Token id that fills the rows.
        pad_to_multiple: ``T`` is rounded up to a multiple of this, for devices with preferred sizes.
        max_width: Positions that the model has: rounding up does not go beyond. None: no bound.
        unpad: Also give ``token_indices``.

    Raises:
        ValueError: There is no encoding, labels or indices are not as many as the encodings, or an encoding is longer
            than ``max_width``.
    """
    if not encodings:
        raise ValueError("a batch needs at least one encoding")
    if len(indices) != len(encodings) or (labels is not None and len(labels) != len(encodings)):
        raise ValueError("labels and indices must be as many as the encodings")
    lengths = np.array([len(encoding.input_ids) for encoding in encodings])
    width = -(-int(lengths.max()) // pad_to_multiple) * pad_to_multiple
    if max_width is not None:
        if lengths.max() > max_width:
            raise ValueError(f"an encoding of {lengths.max()} tokens, where {max_width} are the most")
        width = min(width, max_width)
    real_BT = np.arange(width) < lengths[:, None]
    input_ids = np.full(real_BT.shape, pad_id, dtype=np.int64)
    token_type_ids = np.zeros(real_BT.shape, dtype=np.int64)
    count = int(lengths.sum())
    # A boolean index walks row by row, so the concatenated rows fall into their places.
    input_ids[real_BT] = np.fromiter(chain.from_iterable(e.input_ids for e in encodings), np.int64, count)
    token_type_ids[real_BT] = np.fromiter(chain.from_iterable(e.token_type_ids for e in encodings), np.int64, count)
    return Batch(
        input_ids=input_ids,
        attention_mask=real_BT.astype(np.int64),
        token_type_ids=token_type_ids,
        labels=None if labels is None else _label_array(labels),
        token_indices=places_to_compute(real_BT) if unpad else None,
        indices=np.asarray(indices, dtype=np.int64),
    )


def _label_array(labels: Sequence[Label]) -> NDArray[Any]:
    """Class indices stay whole, as cross-entropy wants them; values and multi-hot rows become float32."""
    whole = all(isinstance(label, (int, np.integer)) for label in labels)
    return np.asarray(labels, dtype=np.int64 if whole else np.float32)


def places_to_compute(real_BT: NDArray[Any]) -> Int64 | None:
    """Choose the places of a padded grid that position-wise layers compute.

    They are those of the tokens, and as much padding as makes their number one of sixteen to an octave. oneDNN compiles
    a kernel for each number that it meets, of half a megabyte and some milliseconds, and keeps a thousand of them.

    Args:
        real_BT: True, or 1, where a token is. *Shape:* ``[B, T]``

    Returns:
        Places ``b * T + t``, ascending, ``[N]``; None where they would be the whole grid.
    """
    real = int(real_BT.sum())
    step = 1 << max(0, real.bit_length() - 5)
    count = -(-real // step) * step
    if count >= real_BT.size:
        return None
    # A stable sort of "is padding" puts the tokens first, then the padding in order.
    return np.sort(np.argsort(real_BT.ravel() == 0, kind="stable")[:count])


_BATCHES_PER_CHUNK = 50
"""Batches that are sorted by length together: enough for little padding, few enough that company varies by epoch."""


def length_batches(lengths: Sequence[int] | Int64, batch_size: int, *, seed: int, epoch: int) -> list[Int64]:
    """Choose the batches of a training epoch: shuffled, yet examples of like length share a batch.

    The examples are shuffled, cut into chunks of 50 batches, sorted by length within each chunk, and cut into
    batches, which are shuffled. The result depends on the arguments alone, so all processes of a run agree on it.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples in a batch; one batch holds the rest and may be smaller.
        seed: Seed of the run, not negative.
        epoch: Number of the epoch, not negative.

    Returns:
        Positions of the examples, batch by batch; each example occurs once.

    Raises:
        ValueError: ``batch_size`` is below 1, or ``seed`` or ``epoch`` is negative.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    lengths = np.asarray(lengths, dtype=np.int64)
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    batches: list[Int64] = []
    for start in range(0, len(order), _BATCHES_PER_CHUNK * batch_size):
        chunk = order[start : start + _BATCHES_PER_CHUNK * batch_size]
        batches += _cut(chunk[np.argsort(lengths[chunk], kind="stable")], batch_size)
    return [batches[place] for place in generator.permutation(len(batches))]


def sorted_batches(lengths: Sequence[int] | Int64, batch_size: int) -> list[Int64]:
    """Choose batches for inference: longest examples first, so that memory runs out at once or not at all.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples in a batch; the last may be smaller.

    Returns:
        Positions of the examples, batch by batch; equals keep their order.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    return _cut(np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable"), batch_size)


def _cut(order: Int64, batch_size: int) -> list[Int64]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
