"""Token shards: a corpus as plain arrays on disk, written once in order, read memory-mapped.

A corpus folder holds, for each split (``train``, ``held_out``)

- ``SPLIT-00000.tokens.bin``, ``SPLIT-00001.tokens.bin``, ...: token ids without special tokens, uint16 (uint32 above
  65,536 tokens of vocabulary), cut at the end of the document that fills a shard;
- ``SPLIT.sentences.bin``: int64 ``[S+1]``, where each sentence starts, counted in tokens over all shards of the split;
- ``SPLIT.documents.bin``: int64 ``[D+1]``, where each document starts, counted in sentences;

and, once, the vocabulary (``tokenizer.json``, ``vocab.txt``, ...) and ``manifest.json``: counts, settings, and the size
and SHA-256 of every file. All numbers are little-endian. A finished folder is never changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from squeezebert import files
from squeezebert.errors import InputError

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = get_args(Split)
MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the layout above; a reader refuses any other."""
SHARD_TOKENS = 1 << 27
"""Tokens after which a shard is closed: 256 MiB at two bytes a token."""

_INT64 = np.dtype("<i8")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a split holds."""

    documents: int
    sentences: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` says. It names no date and no machine: the same input gives the same bytes."""

    format: int
    """Version of the layout, see `FORMAT`."""
    settings: dict[str, Any]
    """Everything that decides the tokens, by option name."""
    inputs: list[dict[str, Any]]
    """What was read, in order: name, bytes and SHA-256 of each file; name and configuration of a hub data set."""
    vocabulary: dict[str, Any]
    """``size`` in tokens and ``sha256`` of the tokens in id order, one a line."""
    dtype: str
    """Type of the stored ids: "uint16" or "uint32"."""
    splits: dict[str, Counts]
    """Counts of each split."""
    dropped: dict[str, int]
    """Documents left out, by reason."""
    files: dict[str, dict[str, Any]]
    """``bytes`` and ``sha256`` of every other file of the folder, by name."""

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read the manifest of a corpus folder.

        Raises:
            InputError: The folder is no corpus, or one of another format.
        """
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise InputError(f"{folder}: not a corpus folder (no {MANIFEST}); `squeezebert corpus build` makes one")
        values = files.read_json(path)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise InputError(f"{path}: not a corpus of format {FORMAT}; build it again with this version")
        try:
            splits = {name: Counts(**counts) for name, counts in values["splits"].items()}
            return cls(**{**values, "splits": splits})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: damaged ({error}); build the corpus again") from None

    def write(self, folder: str | Path) -> None:
        """Write ``manifest.json`` into ``folder``."""
        files.write_json(Path(folder) / MANIFEST, dataclasses.asdict(self))


class Tokens:
    """The token ids of a split, sliced as if they were one array.

    ``tokens[a:b]`` is a read-only view of the mapped file; only a slice that crosses shards is copied.
    """

    def __init__(self, shards: Sequence[NDArray[Any]], dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._shards = list(shards)
        self._starts = [0]
        for shard in self._shards:
            self._starts.append(self._starts[-1] + len(shard))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, span: slice) -> NDArray[Any]:
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError("tokens are sliced with step 1")
        if stop <= start:
            return np.empty(0, self.dtype)
        first = bisect_right(self._starts, start) - 1
        if stop <= self._starts[first + 1]:
            return self._shards[first][start - self._starts[first] : stop - self._starts[first]]
        pieces = []
        for index in range(first, len(self._shards)):
            begin, end = self._starts[index], self._starts[index + 1]
            if begin >= stop:
                break
            pieces.append(self._shards[index][max(start, begin) - begin : min(stop, end) - begin])
        return np.concatenate(pieces)


class Corpus:
    """One split of a corpus folder, memory-mapped: opening it reads next to nothing.

    Attributes:
        folder: The corpus folder; it also holds the vocabulary, so ``Tokenizer.load(corpus.folder)`` decodes.
        split: ``train`` or ``held_out``.
        manifest: What ``manifest.json`` says.
        tokens: Token ids of the whole split, without special tokens; ``tokens[a:b]`` slices across shards.
        sentence_offsets: int64 ``[S+1]``; sentence ``s`` is ``tokens[sentence_offsets[s]:sentence_offsets[s + 1]]``.
            No sentence is empty.
        document_offsets: int64 ``[D+1]``; document ``d`` is sentences ``document_offsets[d]`` up to, without,
            ``document_offsets[d + 1]``. No document is empty.
    """

    folder: Path
    split: Split
    manifest: Manifest
    tokens: Tokens
    sentence_offsets: NDArray[np.int64]
    document_offsets: NDArray[np.int64]

    @classmethod
    def open(cls, folder: str | Path, split: Split = "train", *, verify: bool = False) -> Corpus:
        """Open one split.

        Args:
            folder: What `squeezebert corpus build` wrote.
            split: ``train`` or ``held_out``.
            verify: Compare every file's SHA-256 with the manifest, about a second per GB; sizes always are compared.

        Raises:
            InputError: No corpus folder, an unknown split, or a file that is missing, cut short or changed.
        """
        if split not in SPLITS:
            raise InputError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}")
        corpus = cls()
        corpus.folder = Path(folder)
        corpus.split = split
        corpus.manifest = Manifest.read(folder)
        check_files(folder, corpus.manifest, hashes=verify)
        corpus.sentence_offsets = _map(corpus.folder / f"{split}.sentences.bin", _INT64)
        corpus.document_offsets = _map(corpus.folder / f"{split}.documents.bin", _INT64)
        dtype = np.dtype(corpus.manifest.dtype).newbyteorder("<")
        names = sorted(name for name in corpus.manifest.files if name.startswith(f"{split}-"))
        corpus.tokens = Tokens([_map(corpus.folder / name, dtype) for name in names], dtype)
        counts = corpus.manifest.splits[split]
        if (corpus.n_documents, corpus.n_sentences, corpus.n_tokens) != (
            counts.documents, counts.sentences, counts.tokens,
        ):  # fmt: skip
            raise InputError(f"{corpus.folder / MANIFEST}: counts of {split} differ from its files; build it again")
        return corpus

    def __reduce__(self) -> tuple[Callable[..., Corpus], tuple[Path, Split]]:
        # Worker processes map the files again instead of receiving a copy of them.
        return Corpus.open, (self.folder, self.split)

    @property
    def n_documents(self) -> int:
        """Documents of this split, ``D``."""
        return len(self.document_offsets) - 1

    @property
    def n_sentences(self) -> int:
        """Sentences of this split, ``S``."""
        return len(self.sentence_offsets) - 1

    @property
    def n_tokens(self) -> int:
        """Tokens of this split."""
        return len(self.tokens)

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary; every stored id is below it."""
        return int(self.manifest.vocabulary["size"])

    def sentence(self, index: int) -> NDArray[Any]:
        """Token ids of sentence ``index``, a read-only view."""
        return self.tokens[int(self.sentence_offsets[index]) : int(self.sentence_offsets[index + 1])]

    def document(self, index: int) -> list[NDArray[Any]]:
        """Token ids of document ``index``, one read-only view per sentence."""
        first, last = int(self.document_offsets[index]), int(self.document_offsets[index + 1])
        offsets = self.sentence_offsets[first : last + 1]
        tokens = self.tokens[int(offsets[0]) : int(offsets[-1])]
        return np.split(tokens, offsets[1:-1] - offsets[0])


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long the sentences, or the documents, of a split are."""

    mean: float
    quantiles: dict[float, int]
    """The length that this share of them does not exceed; 1.0 is the longest."""


def summarize_lengths(offsets: NDArray[np.int64], inner: NDArray[np.int64] | None = None) -> Lengths:
    """Lengths between offsets, in constant memory.

    Args:
        offsets: Where each thing starts, and the end of the last, as in `Corpus`. *Shape:* [S+1].
        inner: Where each of the things that ``offsets`` counts starts. Given, lengths are counted in its unit: tokens
            of documents come from ``document_offsets`` and ``sentence_offsets``.
    """
    counts = np.zeros(1, np.int64)
    for start in range(0, len(offsets) - 1, _BLOCK):
        block = np.asarray(offsets[start : start + _BLOCK + 1])
        found = np.bincount(np.diff(block if inner is None else inner[block]))
        counts, found = (counts, found) if len(counts) >= len(found) else (found, counts)
        counts[: len(found)] += found
    total = int(counts.sum())
    if not total:
        return Lengths(mean=0.0, quantiles=dict.fromkeys(_SHARES, 0))
    reached = np.cumsum(counts)
    return Lengths(
        mean=float(counts @ np.arange(len(counts))) / total,
        quantiles={share: int(np.searchsorted(reached, share * total)) for share in _SHARES},
    )


_BLOCK = 1 << 20
_SHARES = (0.05, 0.5, 0.95, 1.0)


def check_files(folder: str | Path, manifest: Manifest, *, hashes: bool) -> None:
    """Compare the files of a corpus folder with its manifest: sizes, and on request SHA-256.

    Raises:
        InputError: A file is missing, or its size or hash differs; the line names the file.
    """
    for name, recorded in manifest.files.items():
        path = Path(folder) / name
        if not path.is_file():
            raise InputError(f"{path}: missing, though {MANIFEST} lists it; copy or build the corpus again")
        size = path.stat().st_size
        if size != recorded["bytes"]:
            raise InputError(
                f"{path}: {size} bytes, {MANIFEST} says {recorded['bytes']}; copy or build the corpus again"
            )
        if hashes and sha256(path) != recorded["sha256"]:
            raise InputError(f"{path}: SHA-256 differs from {MANIFEST}, the file is damaged; copy or build it again")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Name ``path`` in an error of writing: a full disk is reported by the system without the file's name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


class CorpusWriter(AbstractContextManager["CorpusWriter"]):
    """Writes the shards and boundaries of a corpus folder, one document after the other; memory stays constant.

    The folder is the caller's: wrap it in `files.atomic_folder`, or rename it when done. The vocabulary's files are to
    lie in it before `finish`.

    Args:
        folder: An existing folder.
        vocab_size: Tokens of the vocabulary; decides between uint16 and uint32.
        shard_tokens: Tokens after which a shard is closed.
    """

    def __init__(self, folder: str | Path, vocab_size: int, *, shard_tokens: int = SHARD_TOKENS) -> None:
        self.folder = Path(folder)
        self._vocab_size = vocab_size
        self.dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self._splits = {split: _SplitWriter(self.folder, split, shard_tokens) for split in SPLITS}

    def add(
        self, split: Split, tokens: NDArray[Any] | Sequence[int], sentence_lengths: NDArray[Any] | Sequence[int]
    ) -> None:
        """Append one document.

        Args:
            split: ``train`` or ``held_out``.
            tokens: Ids of its sentences, one after the other.
            sentence_lengths: Tokens of each sentence, none of them 0; their sum is ``len(tokens)``.
        """
        ids = np.asarray(tokens)
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self._vocab_size:
            raise ValueError(f"token ids must lie in 0..{self._vocab_size - 1}")
        self._splits[split].add(ids.astype(self.dtype), np.asarray(sentence_lengths, _INT64))

    def finish(
        self,
        *,
        vocabulary: dict[str, Any],
        settings: dict[str, Any] | None = None,
        inputs: list[dict[str, Any]] | None = None,
        dropped: dict[str, int] | None = None,
    ) -> Manifest:
        """Close all files and write the manifest, which lists every file then in the folder."""
        recorded: dict[str, dict[str, Any]] = {}
        for writer in self._splits.values():
            recorded.update(writer.close())
        for path in sorted(self.folder.iterdir()):
            if path.name not in recorded:
                recorded[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        manifest = Manifest(
            format=FORMAT,
            settings=settings or {},
            inputs=inputs or [],
            vocabulary=vocabulary,
            dtype="uint16" if self.dtype.itemsize == 2 else "uint32",
            splits={split: writer.counts for split, writer in self._splits.items()},
            dropped=dropped or {},
            files=dict(sorted(recorded.items())),
        )
        manifest.write(self.folder)
        return manifest

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._splits.values():
            writer.close()


class _HashedFile:
    """A file being written, with its size and SHA-256 so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._file: BinaryIO = path.open("wb", buffering=1 << 20)

    def write(self, array: NDArray[Any]) -> None:
        data = np.ascontiguousarray(array).tobytes()
        with name_in_errors(self.path):
            self._file.write(data)
        self._digest.update(data)
        self._bytes += len(data)

    def close(self) -> tuple[str, dict[str, Any]]:
        with name_in_errors(self.path):
            self._file.close()
        return self.path.name, {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


class _SplitWriter:
    def __init__(self, folder: Path, split: Split, shard_tokens: int) -> None:
        self._folder, self._split, self._shard_tokens = folder, split, shard_tokens
        self._sentences = _HashedFile(folder / f"{split}.sentences.bin")
        self._documents = _HashedFile(folder / f"{split}.documents.bin")
        self._shard: _HashedFile | None = None
        self._shard_end = 0
        self._shards = 0
        self._closed: dict[str, dict[str, Any]] = {}
        self.counts = Counts(documents=0, sentences=0, tokens=0)
        self._sentences.write(np.zeros(1, _INT64))
        self._documents.write(np.zeros(1, _INT64))

    def add(self, tokens: NDArray[Any], sentence_lengths: NDArray[np.int64]) -> None:
        if not len(sentence_lengths) or int(sentence_lengths.min()) < 1 or int(sentence_lengths.sum()) != len(tokens):
            raise ValueError("sentence lengths must be positive and add up to the document's tokens")
        if self._shard is None:
            self._shard = _HashedFile(self._folder / f"{self._split}-{self._shards:05d}.tokens.bin")
            self._shards += 1
            self._shard_end = self.counts.tokens + self._shard_tokens
        before = self.counts
        self.counts = Counts(
            documents=before.documents + 1,
            sentences=before.sentences + len(sentence_lengths),
            tokens=before.tokens + len(tokens),
        )
        self._shard.write(tokens)
        self._sentences.write(before.tokens + np.cumsum(sentence_lengths, dtype=_INT64))
        self._documents.write(np.array([self.counts.sentences], _INT64))
        if self.counts.tokens >= self._shard_end:
            self._close(self._shard)
            self._shard = None

    def _close(self, file: _HashedFile) -> None:
        name, recorded = file.close()
        self._closed[name] = recorded

    def close(self) -> dict[str, dict[str, Any]]:
        if self._shard is not None:
            self._close(self._shard)
            self._shard = None
        self._close(self._sentences)
        self._close(self._documents)
        return self._closed


def _map(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.memmap(path, dtype=dtype, mode="r")
