"""Corpus -> batches for pretraining: passages with masked tokens, and pairs in order or swapped. NumPy only.

A batch is a pure function of seed and step: workers, processes and resumed runs that ask for the same step get the same
rows, and each may ask for its own rows only.

**Rows.** A document of ``D`` tokens gives about ``D / room`` rows an epoch, where ``room`` is what a row holds beside
its special tokens. The rows' places lie evenly over the document; where they begin differs from document to document
and from epoch to epoch, and the order of all rows is shuffled anew each epoch. A row begins or ends with a whole
sentence, and is shortened to the room.

**Padding.** Rows come in groups that share a length. A document that has room for a row fills it, so most groups hold
no padding at all. One group in ten is given a shorter room, drawn at random (ALBERT: one row in ten). Documents too
short for a row are grouped with documents of their length. A batch is as wide as its longest group, and the groups of
a step are sorted by length; so whoever cuts a step into smaller batches, of one group or more, pads next to nothing.

**Held-out text** is scored alike every time, masks included, by a source of its own with a fixed seed and
``short_probability=0``, over the steps ``range(source.steps_per_epoch)``.

**Single sentences.** A document of one sentence has no order to predict; it is left out, unless ``mlm_only``. So
every row of a batch of pairs has a label.

**Both orders.** Where that is asked for, a group holds half as many pairs, each as it stands and swapped, one row
after the other, with masks of their own. What a model says of a pair in either order then falls out of the gradient of
sentence order, and the little that depends on the order is left.

**Overlaps.** What tells the order of two passages is faint, and small models found nothing of it within some ten
thousand rows. With ``overlap`` the later passage of a pair begins, at first, with the
last tokens of the earlier one, so that the place where the two meet speaks clearly. (A masked token there may stand in
the other passage.) The share of such pairs falls to none over ``overlap_steps`` steps of a phase; held-out text
never has any.

Shapes: ``B`` rows of a batch, ``R`` rows of a group, ``T`` tokens, ``M`` masked tokens, ``N`` tokens without padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from squeezebert.data.masking import Masking, Vocabulary, generator_at, mask_tokens
from squeezebert.data.sentence_order import Pairs, neighbours, order_pairs, overlap, passages, shorten
from squeezebert.errors import InputError

Int64 = NDArray[np.int64]

_WIDTH = 8
"""A shorter length that is drawn is a multiple of this many tokens: few different shapes, which matrix units like."""
_ORDER, _LENGTHS, _ROWS = 0, 1, 2
"""First number of the address of each kind of chance: the order of an epoch, the lengths of a step, a group's rows."""
_GOLDEN = (math.sqrt(5) - 1) / 2


class TokenSequence(Protocol):
    """Token ids that can be sliced."""

    def __getitem__(self, span: slice, /) -> NDArray[Any]:
        """Ids of a stretch."""


class TokenCorpus(Protocol):
    """What is read of a corpus; ``shards.Corpus`` has it."""

    @property
    def tokens(self) -> TokenSequence:
        """All token ids, without special tokens."""

    @property
    def sentence_offsets(self) -> Int64:
        """Where each sentence starts, in tokens, and the end of the last."""

    @property
    def document_offsets(self) -> Int64:
        """Where each document starts, in sentences, and the end of the last."""


@dataclass(slots=True, eq=False)
class PretrainingBatch:
    """What a model reads and is asked in one step of pretraining, or in a part of one."""

    input_ids: Int64
    """Token ids, some of them masked, padded at the end. *Shape:* ``[B, T]``."""
    attention_mask: Int64 | None
    """1 for a token, 0 for padding; None where nothing is padded, as in most batches: attention without a mask is
    fastest. *Shape:* ``[B, T]``."""
    token_type_ids: Int64
    """0 for the first passage, 1 for the second, 0 for padding. *Shape:* ``[B, T]``."""
    masked_positions: Int64
    """Places ``b * T + t`` of the tokens to guess, ascending. *Shape:* ``[M]``."""
    masked_labels: Int64
    """The tokens to guess. *Shape:* ``[M]``."""
    sentence_order_labels: Int64 | None
    """1 where the passages are swapped, 0 where they are in order; None: no pairs. *Shape:* ``[B]``."""
    token_indices: Int64 | None
    """Places ``b * T + t`` of the tokens that are not padding, ascending, for a model that skips padding; None where
    nothing is padded, or not asked for. *Shape:* ``[N]``."""
    tokens: int
    """Tokens that are not padding, ``N``."""

    def written_ids(self) -> Int64:
        """The tokens as they were before any was masked. *Shape:* ``[B, T]``."""
        ids = self.input_ids.copy()
        ids.reshape(-1)[self.masked_positions] = self.masked_labels
        return ids


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Rows of one length, before they are filled with tokens. Positions count the tokens of the corpus."""

    width: int
    """Tokens of a row, special ones included."""
    documents: Int64
    """Document of each row. *Shape:* ``[R]``."""
    segments: tuple[tuple[Int64, Int64], ...]
    """Start and stop of each row's passage; of its two passages, in their order in the row. *Shape:* ``[R]`` each."""
    sentence_order_labels: Int64 | None
    """As in the batch. *Shape:* ``[R]``."""


class PretrainingSource:
    """Gives the batch of any step of one phase of pretraining.

    Memory: 4 bytes for each row of an epoch (the order of two epochs at their border), and 40 for each document.

    Args:
        corpus: Tokens with the boundaries of sentences and documents.
        vocabulary: Special and ordinary tokens.
        length: Tokens of a full row, special ones included.
        batch_size: Rows of a step, over all processes.
        seed: Decides everything that is left to chance.
        masking: How masked tokens are chosen.
        mlm_only: One passage a row instead of a pair, and no sentence-order labels.
        short_probability: Share of the groups that are given a shorter length.
        both_orders: Give each pair in both orders, in neighbouring rows.
        overlap: Most tokens at the end of a pair's earlier passage that its later one repeats; their number is drawn
            from 1 on.
        overlap_steps: Steps, from the first on, over which the share of the pairs that overlap falls from all to none,
            evenly.
        group_size: Rows that share a length; best the rows that a device takes at once. None: 32, or the largest
            smaller power of two that divides ``batch_size``.
        unpad: Also give ``token_indices``.

    Raises:
        InputError: A setting is out of range, or the corpus holds no document that can be used.
    """

    def __init__(
        self,
        corpus: TokenCorpus,
        vocabulary: Vocabulary,
        *,
        length: int,
        batch_size: int,
        seed: int,
        masking: Masking | None = None,
        mlm_only: bool = False,
        short_probability: float = 0.1,
        both_orders: bool = False,
        overlap: int = 0,
        overlap_steps: int = 0,
        group_size: int | None = None,
        unpad: bool = False,
    ) -> None:
        self._special = 2 if mlm_only else 3
        shortest = self._special + 2
        if length < shortest:
            raise InputError(f"pretraining: length must be at least {shortest}, not {length}")
        if batch_size < 1:
            raise InputError(f"pretraining: batch_size must be at least 1, not {batch_size}")
        if seed < 0:
            raise InputError(f"pretraining: seed must not be negative, not {seed}")
        if not 0 <= short_probability <= 1:
            raise InputError(f"pretraining: short_probability must lie in 0..1, not {short_probability}")
        if group_size is None:
            group_size = math.gcd(batch_size, 32)
        if group_size < 1 or batch_size % group_size:
            raise InputError(f"pretraining: group_size {group_size} does not divide batch_size {batch_size}")
        if both_orders and (mlm_only or group_size % 2):
            raise InputError("pretraining: both_orders needs pairs, not mlm_only, and an even group_size")
        if overlap < 0 or overlap_steps < 0 or (overlap == 0) != (overlap_steps == 0) or (overlap and mlm_only):
            raise InputError(
                "pretraining: overlap and overlap_steps go together, above 0, and need pairs, not mlm_only"
            )
        self.corpus = corpus
        self.vocabulary = vocabulary
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.masking = masking or Masking()
        self.mlm_only = mlm_only
        self.short_probability = short_probability
        self.both_orders = both_orders
        self.overlap = overlap
        self.overlap_steps = overlap_steps
        self.group_size = group_size
        self.unpad = unpad
        self._groups_per_step = batch_size // group_size
        self._drawn_rows = group_size // 2 if both_orders else group_size
        self._short_widths = np.arange(2 * _WIDTH, length, _WIDTH)

        sentences = np.diff(corpus.document_offsets)
        usable = np.flatnonzero(sentences >= self._min_sentences)
        self.dropped_documents = len(sentences) - len(usable)
        if not len(usable):
            raise InputError("pretraining: no document of the corpus has two sentences; use mlm_only")
        self._document_start = corpus.sentence_offsets[corpus.document_offsets[:-1]]
        self._document_tokens = corpus.sentence_offsets[corpus.document_offsets[1:]] - self._document_start
        room = length - self._special
        sizes = self._document_tokens[usable]
        self._long = usable[sizes >= room]
        # Rows of the long documents before each of them, so that a row's document is found by bisection.
        self._first_row = np.concatenate([[0], np.cumsum(np.round(self._document_tokens[self._long] / room))])
        self._first_row = self._first_row.astype(np.int64)
        short = usable[sizes < room]
        self._short = short[np.argsort(self._document_tokens[short], kind="stable")]
        self._long_groups = -(-int(self._first_row[-1]) // self._drawn_rows)
        self._groups = self._long_groups + -(-len(self._short) // self._drawn_rows)
        self._orders: dict[int, _Order] = {}
        self._last_step: tuple[int, Int64, list[_Members]] = -1, np.empty(0, np.int64), []

    @property
    def _min_sentences(self) -> int:
        return 1 if self.mlm_only else 2

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every document has been passed; the last one may begin the next epoch."""
        return -(-self._groups // self._groups_per_step)

    def batch(self, step: int, rows: slice = slice(None)) -> PretrainingBatch:
        """Give the batch of a step, or some of its rows.

        The groups of a step come longest first. Processes that share a step, and parts that follow each other, fare
        best with neighbouring rows at the same time: part ``i`` of process ``r`` of ``n``, ``m`` rows each, takes
        ``rows = slice((i * n + r) * m, (i * n + r + 1) * m)``.

        Args:
            step: Step of the phase, from 0.
            rows: Which of the ``batch_size`` rows, a stretch of them that is not empty.
        """
        start, stop, stride = rows.indices(self.batch_size)
        if stride != 1 or stop <= start:
            raise ValueError(f"rows must be a stretch of 0..{self.batch_size - 1}, not {rows}")
        places = range(start // self.group_size, -(-stop // self.group_size))
        widths, members = self._step(step)
        drawn = [self._fill(step, place, int(widths[place]), members[place]) for place in places]
        return self._join(drawn, start - places.start * self.group_size, stop - start)

    def groups(self, step: int) -> list[Group]:
        """Give the rows of a step as stretches of the corpus: what :meth:`batch` fills with tokens."""
        widths, members = self._step(step)
        return [
            self._draw(step, int(width), group, generator_at(self.seed, _ROWS, step, place))
            for place, (width, group) in enumerate(zip(widths, members, strict=True))
        ]

    def _step(self, step: int) -> tuple[Int64, list[_Members]]:
        """Width and rows of each group of a step, widest first; kept for the next part of the same step."""
        if self._last_step[0] == step:
            return self._last_step[1:]
        chance = generator_at(self.seed, _LENGTHS, step)
        shorter = chance.random(self._groups_per_step) < self.short_probability
        drawn = chance.integers(max(len(self._short_widths), 1), size=self._groups_per_step)
        widths, members = [], []
        for place in range(self._groups_per_step):
            epoch, index = divmod(step * self._groups_per_step + place, self._groups)
            group = self._members(epoch, index)
            width = self.length
            if group.slots is None:
                width = int(self._document_tokens[group.documents].max()) + self._special
            elif shorter[place] and len(self._short_widths):
                width = int(self._short_widths[drawn[place]])
            widths.append(width)
            members.append(group)
        order = np.argsort(-np.array(widths), kind="stable")
        self._last_step = step, np.array(widths)[order], [members[place] for place in order]
        return self._last_step[1:]

    def _members(self, epoch: int, index: int) -> _Members:
        """The rows of one group of an epoch."""
        order = self._order(epoch)
        group = int(order.groups[index])
        if group < self._long_groups:
            places = np.arange(group * self._drawn_rows, (group + 1) * self._drawn_rows) % len(order.rows)
            rows = order.rows[places].astype(np.int64)
            which = np.searchsorted(self._first_row, rows, side="right") - 1
            slots = (rows - self._first_row[which] + (which * _GOLDEN + order.phase) % 1) / (
                self._first_row[which + 1] - self._first_row[which]
            )
            return _Members(self._long[which], slots)
        first = (group - self._long_groups) * self._drawn_rows + order.shift
        places = np.arange(first, first + self._drawn_rows) % len(self._short)
        return _Members(self._short[places], None)

    def _order(self, epoch: int) -> _Order:
        """What is drawn once for an epoch; two are kept, for the step on their border."""
        if epoch not in self._orders:
            generator = generator_at(self.seed, _ORDER, epoch)
            rows = np.arange(self._first_row[-1], dtype=np.uint32)
            generator.shuffle(rows)
            self._orders = {kept: order for kept, order in self._orders.items() if kept == epoch - 1}
            self._orders[epoch] = _Order(
                rows=rows,
                groups=generator.permutation(self._groups),
                phase=float(generator.random()),
                shift=int(generator.integers(max(len(self._short), 1))),
            )
        return self._orders[epoch]

    def _draw(self, step: int, width: int, members: _Members, generator: np.random.Generator) -> Group:
        """Choose the sentences of a group's rows, and the order of each pair."""
        corpus, documents = self.corpus, members.documents
        size = self._document_tokens[documents]
        room = np.full(len(documents), width - self._special)
        start = self._document_start[documents]
        if members.slots is not None:
            middle = members.slots * size
            start = start + np.clip(np.round(middle - room / 2), 0, size - room).astype(np.int64)
        first, end = corpus.document_offsets[documents], corpus.document_offsets[documents + 1]
        if self.mlm_only:
            first, end = passages(corpus.sentence_offsets, first, end, start, room, generator)
            stretch = shorten(corpus.sentence_offsets[first], corpus.sentence_offsets[end], room, generator)
            return Group(width, documents, (stretch,), None)
        first, boundary, end = neighbours(corpus.sentence_offsets, first, end, start, room, generator)
        if self.both_orders:
            documents, room, first, boundary, end = (
                np.repeat(each, 2) for each in (documents, room, first, boundary, end)
            )
        pairs = order_pairs(
            corpus.sentence_offsets, first, boundary, end, room, generator, both_orders=self.both_orders
        )  # fmt: skip
        if step < self.overlap_steps:
            pairs = self._overlap(pairs, step, documents, generator)
        segments = ((pairs.first_start, pairs.first_stop), (pairs.second_start, pairs.second_stop))
        return Group(width, documents, segments, pairs.labels)

    def _overlap(self, pairs: Pairs, step: int, documents: Int64, generator: np.random.Generator) -> Pairs:
        """Let as many pairs overlap as the step wants; both orders of one alike."""
        rows = len(documents)
        overlapping = generator.random(rows) < 1 - step / self.overlap_steps
        tokens = np.where(overlapping, generator.integers(1, self.overlap + 1, size=rows), 0)
        places = generator.random(rows)
        if self.both_orders:
            tokens[1::2], places[1::2] = tokens[::2], places[::2]
        start = self._document_start[documents]
        return overlap(pairs, tokens, places, start, start + self._document_tokens[documents])

    def _fill(self, step: int, place: int, width: int, members: _Members) -> _Filled:
        """Put the tokens of a group's rows into place and mask some."""
        generator = generator_at(self.seed, _ROWS, step, place)
        group = self._draw(step, width, members, generator)
        vocabulary, tokens = self.vocabulary, self.corpus.tokens
        ids_RT = np.full((self.group_size, width), vocabulary.pad_id, dtype=np.int64)
        types_RT = np.zeros_like(ids_RT)
        lengths = np.empty(self.group_size, dtype=np.int64)
        ids_RT[:, 0] = vocabulary.cls_id
        for row in range(self.group_size):
            at = 1
            for segment, (starts, stops) in enumerate(group.segments):
                begin, stop = int(starts[row]), int(stops[row])
                after = at + stop - begin
                ids_RT[row, at:after] = tokens[begin:stop]
                ids_RT[row, after] = vocabulary.sep_id
                types_RT[row, at : after + 1] = segment
                at = after + 1
            lengths[row] = at
        ids_RT, positions, labels = mask_tokens(ids_RT, vocabulary, self.masking, generator)
        return _Filled(ids_RT, types_RT, lengths, positions, labels, group.sentence_order_labels)

    def _join(self, groups: list[_Filled], skip: int, count: int) -> PretrainingBatch:
        """Stack groups, widest first, and keep ``count`` rows from row ``skip`` on."""
        keep = slice(skip, skip + count)
        lengths = np.concatenate([group.lengths for group in groups])[keep]
        width = max(group.ids_RT.shape[1] for group in groups)
        ids = np.full((len(groups) * self.group_size, width), self.vocabulary.pad_id, dtype=np.int64)
        types = np.zeros_like(ids)
        positions = []
        for index, group in enumerate(groups):
            rows = slice(index * self.group_size, (index + 1) * self.group_size)
            own = group.ids_RT.shape[1]
            ids[rows, :own] = group.ids_RT
            types[rows, :own] = group.types_RT
            positions.append((group.positions // own + rows.start) * width + group.positions % own)
        places = np.concatenate(positions) - skip * width
        inside = (places >= 0) & (places < count * width)
        real_BT = np.arange(width) < lengths[:, None]
        padded = not real_BT.all()
        labels = [group.sentence_order_labels for group in groups]
        return PretrainingBatch(
            input_ids=ids[keep],
            attention_mask=real_BT.astype(np.int64) if padded else None,
            token_type_ids=types[keep],
            masked_positions=places[inside],
            masked_labels=np.concatenate([group.masked_labels for group in groups])[inside],
            sentence_order_labels=None
            if self.mlm_only
            else np.concatenate([each for each in labels if each is not None])[keep],
            token_indices=np.flatnonzero(real_BT) if self.unpad and padded else None,
            tokens=int(lengths.sum()),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """What is drawn once for an epoch."""

    rows: NDArray[np.uint32]
    """The rows of the long documents, shuffled."""
    groups: Int64
    """The groups, shuffled."""
    phase: float
    """Shifts the places of the rows in all documents, as a share of the distance of two rows."""
    shift: int
    """Shifts which short documents share a group."""


@dataclass(frozen=True, slots=True, eq=False)
class _Members:
    """The rows of a group, or its pairs where each gives two rows."""

    documents: Int64
    """Document of each."""
    slots: NDArray[np.float64] | None
    """Where its middle lies in the document, 0 to 1; None: they are whole documents."""


@dataclass(frozen=True, slots=True, eq=False)
class _Filled:
    """The rows of a group with their tokens; the fields are those of the batch."""

    ids_RT: Int64
    types_RT: Int64
    lengths: Int64
    positions: Int64
    masked_labels: Int64
    sentence_order_labels: Int64 | None
