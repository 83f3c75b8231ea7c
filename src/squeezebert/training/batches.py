"""Examples, encoded once -> the batches of every step. NumPy only.

A step's batch depends on seed and step alone, so a run resumes from the number of the step, and every process knows
what the others compute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from squeezebert.data.collate import Batch, collate, length_batches
from squeezebert.data.examples import Example, Label
from squeezebert.tokenizer import Encoding

if TYPE_CHECKING:
    from squeezebert.tokenizer import Tokenizer

_TEXTS_AT_A_TIME = 10_000


class EncodedExamples:
    """Examples as token ids, laid end to end: a few bytes a token, where lists of Python integers take thirty.

    Args:
        examples: The examples, all labelled or none.
        tokenizer: Turns texts into ids.
        max_length: Tokens kept of each.

    Attributes:
        lengths: Tokens of each example. *Shape:* ``[n]``.
        labels: Labels as the examples hold them; None: unlabelled.
        max_length: As given.
        truncated: Examples that were cut to ``max_length``, or just reach it.
    """

    def __init__(self, examples: Sequence[Example], tokenizer: Tokenizer, max_length: int) -> None:
        ids, types, lengths = [], [], []
        for start in range(0, len(examples), _TEXTS_AT_A_TIME):
            some = examples[start : start + _TEXTS_AT_A_TIME]
            pairs = None if some[0].pair is None else [example.pair for example in some]
            encodings = tokenizer.encode_batch([example.text for example in some], pairs, max_length=max_length)
            ids.append(np.fromiter(chain.from_iterable(e.input_ids for e in encodings), np.int32))
            types.append(np.fromiter(chain.from_iterable(e.token_type_ids for e in encodings), np.uint8))
            lengths += [len(encoding.input_ids) for encoding in encodings]
        self._ids = np.concatenate(ids)
        self._types = np.concatenate(types)
        self._ends = np.cumsum(lengths)
        self._pad_id = tokenizer.pad_id
        self.lengths = np.array(lengths)
        self.labels: list[Label] | None = None
        if examples[0].label is not None:
            self.labels = [example.label for example in examples if example.label is not None]
        self.max_length = max_length
        self.truncated = int((self.lengths == max_length).sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def collate(self, indices: NDArray[np.int64]) -> Batch:
        """Stack the examples at ``indices`` into a batch for a model that skips padding."""
        return collate(
            [self._encoding(int(index)) for index in indices],
            None if self.labels is None else [self.labels[index] for index in indices],
            indices=indices,
            pad_id=self._pad_id,
            unpad=True,
        )

    def _encoding(self, index: int) -> Encoding:
        part = slice(self._ends[index] - self.lengths[index], self._ends[index])
        return Encoding(self._ids[part].tolist(), self._types[part].tolist(), None)

    def fingerprint(self) -> str:
        """Hash of ids, lengths and labels: equal for equal data and vocabulary only."""
        digest = hashlib.sha256()
        for array in (self._ids, self._types, self.lengths):
            digest.update(array.tobytes())
        digest.update(repr(self.labels).encode())
        return digest.hexdigest()


class EpochBatches:
    """Every example once an epoch, shuffled anew for each, neighbours in length together.

    Args:
        examples: The training data.
        batch_size: Examples of a step.
        seed: Seed of the order.

    Attributes:
        steps_per_epoch: Batches of an epoch; the smallest of them may hold fewer examples.
    """

    def __init__(self, examples: EncodedExamples, batch_size: int, seed: int) -> None:
        self._examples = examples
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._batches: list[NDArray[np.int64]] = []
        self.steps_per_epoch = -(-len(examples) // batch_size)

    def examples(self, step: int) -> NDArray[np.int64]:
        """Positions of the examples of a step, all processes together."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._batches = length_batches(self._examples.lengths, self._batch_size, seed=self._seed, epoch=epoch)
            self._epoch = epoch
        return self._batches[place]

    def batch(self, step: int, examples: NDArray[np.int64]) -> Batch:
        """Stack some of a step's examples."""
        return self._examples.collate(examples)
