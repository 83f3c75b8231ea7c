"""Sources to a corpus folder, in two passes; killed at any moment, the same call goes on where it stopped.

1. Documents are packed, in the order of the sources, into chunks of about 2 million characters. Any process turns any
   chunk into tokens and writes them to one file, named after the chunk's position and a hash of everything that decides
   its content. A chunk whose file exists is done, whoever wrote it and when.
2. The chunk files are read in order, repeated documents are left out, and the rest goes into shards.

The chunks lie in ``OUTPUT.partial`` beside the output, which appears whole at the end. Memory does not grow with the
corpus, but for one byte a document in the second pass.
"""

from __future__ import annotations

import collections
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezebert import files
from squeezebert.data.corpus import REASONS, Pipeline, Settings, Source, content_hash, find_sources, read_documents
from squeezebert.data.shards import MANIFEST, SHARD_TOKENS, CorpusWriter, Manifest, check_files, name_in_errors, sha256
from squeezebert.errors import InputError
from squeezebert.tokenizer import SPECIAL_TOKENS, Tokenizer

CHUNK_CHARACTERS = 1 << 21
"""Text of a chunk: what is lost when a process is killed, and what a process holds at a time."""

_CHUNK_FORMAT = 1
_UNLIMITED = 1 << 30
# Words an encoder remembers, about 200 bytes each, and new ones it has tokenized as one text.
_MOST_WORDS = 1 << 18
_WORDS_AT_ONCE = 64
# Documents whose hashes are compared at a time: 64 MiB of them.
_HASHES_AT_ONCE = 1 << 22
_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a build has come."""

    bytes_done: int
    """Raw text read so far, bytes; all but the last few chunks of it is tokens on disk."""
    bytes_kept: int
    """Of it, what an earlier run had turned into tokens."""
    bytes_total: int | None
    """Raw text there will be, about; None: not known."""


class Encoder:
    """Sentences to token ids, as `Tokenizer.encode` without ``[CLS]`` and ``[SEP]``, several times faster.

    BERT's tokenization never looks across a blank, so the ids of a sentence are those of its blank-separated words, one
    after the other, and each distinct word needs the tokenizer only once. A special token's name written in a text is
    ordinary text here: no id but that of ``[UNK]`` stands for anything special.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}
        # The ids of word number w are ids[starts[w]:starts[w + 1]].
        self._ids: NDArray[Any] = np.empty(0, self._dtype)
        self._starts: NDArray[np.int64] = np.zeros(1, np.int64)

    def encode(self, sentences: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Encode sentences.

        Returns:
            The token ids of all sentences, one after the other, and the number of tokens of each: 0 where nothing of
            a sentence is left, as of a lone control character. *Shapes:* [N], [S].
        """
        if not sentences:
            return np.empty(0, self._dtype), np.empty(0, np.int64)
        words = " ".join(sentences).split(" ")
        distinct = set(words)
        if len(self._numbers) + len(distinct) > _MOST_WORDS:
            self._forget()
        if missing := list(distinct - self._numbers.keys()):
            self._learn(missing)
        numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
        starts = self._starts[numbers]
        lengths = self._starts[numbers + 1] - starts
        ends = np.cumsum(lengths)
        # Position n of the output belongs to a word that begins at ends - lengths there and at starts among the ids.
        ids = self._ids[np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)]
        last_words = np.cumsum([sentence.count(" ") + 1 for sentence in sentences]) - 1
        return ids, np.diff(ends[last_words], prepend=0)

    def _learn(self, words: Sequence[str]) -> None:
        """Have new words tokenized, many in one text: calling the library for a word costs more than its tokens."""
        # "[SEP]" becomes "[ SEP ]", whose tokens are those of the bare characters.
        plain = [_SPECIAL.sub(lambda found: f"[ {found[0][1:-1]} ]", word) for word in words]
        groups = [plain[start : start + _WORDS_AT_ONCE] for start in range(0, len(plain), _WORDS_AT_ONCE)]
        encodings = self._tokenizer.encode_batch(list(map(" ".join, groups)), max_length=_UNLIMITED, offsets=True)
        ids, lengths = [self._ids], []
        for group, encoding in zip(groups, encodings, strict=True):
            ids.append(np.array(encoding.input_ids[1:-1], self._dtype))
            characters = np.array([start for start, _ in (encoding.offsets or [])[1:-1]], np.int64)
            word_ends = np.cumsum([len(word) + 1 for word in group])
            owners = np.searchsorted(word_ends, characters, side="right")
            lengths.append(np.bincount(owners, minlength=len(group)))
        self._ids = np.concatenate(ids)
        self._starts = np.concatenate([self._starts, self._starts[-1] + np.cumsum(np.concatenate(lengths))])
        self._numbers.update(zip(words, range(len(self._numbers), len(self._starts)), strict=False))


@dataclass(frozen=True)
class _Chunk:
    """The kept documents of a chunk: ``D`` of them with ``S`` sentences."""

    hashes: NDArray[np.uint64]
    """*Shape:* [D, 2], see `content_hash`."""
    dropped: NDArray[np.int64]
    """Documents left out, for each of `REASONS`."""
    document_lengths: NDArray[np.int64]
    """Sentences of each document. *Shape:* [D]."""
    sentence_lengths: NDArray[np.int64]
    """Tokens of each sentence. *Shape:* [S]."""
    tokens: NDArray[Any]
    """All token ids."""

    def write(self, path: Path) -> None:
        buffer = io.BytesIO()
        for array in (self.hashes, self.dropped, self.document_lengths, self.sentence_lengths, self.tokens):
            np.save(buffer, array, allow_pickle=False)
        with files.atomic_path(path) as temporary, name_in_errors(path):
            temporary.write_bytes(buffer.getbuffer())

    @classmethod
    def read(cls, path: Path) -> _Chunk:
        with path.open("rb") as file:
            return cls(*(np.load(file, allow_pickle=False) for _ in range(5)))

    @staticmethod
    def read_hashes(path: Path) -> NDArray[np.uint64]:
        with path.open("rb") as file:
            hashes: NDArray[np.uint64] = np.load(file, allow_pickle=False)
        return hashes


class _Worker:
    """Turns the documents of a chunk into tokens; one in each process."""

    def __init__(self, settings: Settings, tokenizer: Tokenizer) -> None:
        self._pipeline = Pipeline(settings)
        self._encoder = Encoder(tokenizer)

    def process(self, texts: Sequence[str], path: Path) -> None:
        sentences: list[str] = []
        ends = [0]
        hashes: list[bytes] = []
        dropped = dict.fromkeys(REASONS, 0)
        for text in texts:
            lines = self._pipeline.lines(text)
            reason = self._pipeline.drop_reason(lines)
            if reason is not None:
                dropped[reason] += 1
                continue
            sentences += self._pipeline.sentences(lines)
            ends.append(len(sentences))
            hashes.append(content_hash(lines))
        tokens, lengths = self._encoder.encode(sentences)
        # Sentences and documents of which the tokenizer leaves nothing are dropped.
        document_lengths = np.diff(np.concatenate([[0], np.cumsum(lengths > 0)])[ends])
        kept = np.flatnonzero(document_lengths)
        dropped["empty"] += len(hashes) - len(kept)
        _Chunk(
            hashes=np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2)[kept],
            dropped=np.array([dropped[reason] for reason in REASONS], np.int64),
            document_lengths=document_lengths[kept],
            sentence_lengths=lengths[lengths > 0],
            tokens=tokens,
        ).write(path)


_worker: _Worker


def _start_worker(settings: Settings, vocabulary: Path) -> None:
    """Set up a worker process."""
    global _worker
    # Ctrl-C reaches the whole group; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker = _Worker(settings, Tokenizer.load(vocabulary))


def _die_with_parent() -> None:
    """End this process when its parent is gone: a pool whose owner was killed waits for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _process_chunk(texts: Sequence[str], path: Path) -> None:
    _worker.process(texts, path)


def build_corpus(
    inputs: Sequence[str | Path],
    output: str | Path,
    vocabulary: str | Path,
    settings: Settings | None = None,
    *,
    processes: int = 1,
    shard_tokens: int = SHARD_TOKENS,
    report: Callable[[Progress], None] | None = None,
) -> Manifest:
    """Build a corpus folder; its bytes depend on inputs, vocabulary and settings, not on ``processes``.

    A build that stopped is taken up by the same call. One that is complete is left as it is.

    Args:
        inputs: Files, folders or hub data sets, see `find_sources`.
        output: Folder to write; must not exist, or be empty, or hold the same corpus.
        vocabulary: What `Tokenizer.load` takes.
        settings: What to read and keep; None: the defaults.
        processes: Processes that clean, split and tokenize. More than one need a main module that may be imported.
        shard_tokens: Tokens after which a shard is closed.
        report: Called after every chunk.

    Raises:
        InputError: An input cannot be used, a line in it is malformed, ``output`` holds something else, or a worker
            was killed. What is done so far is kept.
        MissingExtraError: A package that the inputs or the filters need is not installed.
        OSError: The disk is full or cannot be written. What is done so far is kept.
    """
    settings = settings or Settings()
    output = Path(output)
    if processes < 1:
        raise InputError(f"processes must be at least 1, not {processes}")
    tokenizer = Tokenizer.load(vocabulary)
    sources = find_sources(inputs)
    described = {**settings.describe(), "shard_tokens": shard_tokens}
    tokens_hash = hashlib.sha256("".join(f"{token}\n" for token in _tokens(tokenizer)).encode()).hexdigest()
    vocabulary_entry = {"size": tokenizer.vocab_size, "sha256": tokens_hash}
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: a file of this name is in the way; choose another folder")
    partial = output.with_name(f"{output.name}.partial")
    if output.is_dir() and any(output.iterdir()):
        manifest = _existing(output, sources, described, vocabulary_entry)
        shutil.rmtree(partial, ignore_errors=True)
        return manifest

    partial.mkdir(parents=True, exist_ok=True)
    tokenizer.save(partial / "vocabulary")
    # What one chunk's tokens depend on, besides its texts.
    basis = json.dumps([_CHUNK_FORMAT, described, sha256(partial / "vocabulary" / "tokenizer.json")]).encode()
    chunks: list[Path] = []
    kept_bytes = done_bytes = 0
    total = _total(sources, settings)
    with _workers(settings, tokenizer, partial / "vocabulary", processes) as submit:
        for index, (texts, key, size) in enumerate(_chunks(sources, settings, basis)):
            path = partial / f"{index:07d}-{key}.chunk"
            chunks.append(path)
            if path.exists():
                kept_bytes += size
            else:
                submit(texts, path)
            done_bytes += size
            if report is not None:
                report(Progress(bytes_done=done_bytes, bytes_kept=kept_bytes, bytes_total=total))
    entries = [source.describe() for source in sources]
    with files.atomic_folder(partial / "corpus") as folder:
        tokenizer.save(folder)
        with CorpusWriter(folder, tokenizer.vocab_size, shard_tokens=shard_tokens) as writer:
            dropped = _assemble(chunks, writer, settings)
            manifest = writer.finish(vocabulary=vocabulary_entry, settings=described, inputs=entries, dropped=dropped)
    if output.exists():
        output.rmdir()
    (partial / "corpus").rename(output)
    shutil.rmtree(partial)
    return manifest


def _tokens(tokenizer: Tokenizer) -> Iterator[str]:
    for index in range(tokenizer.vocab_size):
        yield str(tokenizer.id_to_token(index))


def _existing(
    output: Path, sources: Sequence[Source], settings: dict[str, Any], vocabulary: dict[str, Any]
) -> Manifest:
    """The manifest of an output that is complete; refuses anything else."""
    if not (output / MANIFEST).is_file():
        raise InputError(f"{output}: this folder holds other files; choose a new one")
    manifest = Manifest.read(output)
    for name, now, then in (
        ("inputs", [source.describe() for source in sources], manifest.inputs),
        ("settings", settings, manifest.settings),
        ("vocabulary", vocabulary, manifest.vocabulary),
    ):
        if now != then:
            raise InputError(f"{output}: holds a corpus of other {name}; choose a new folder, or delete this one")
    check_files(output, manifest, hashes=False)
    return manifest


def _total(sources: Sequence[Source], settings: Settings) -> int | None:
    sizes = [source.text_bytes(settings.text_field) for source in sources]
    return sum(size for size in sizes if size is not None) if None not in sizes else None


def _chunks(sources: Sequence[Source], settings: Settings, basis: bytes) -> Iterator[tuple[list[str], str, int]]:
    """Pack documents into chunks: their texts, a hash of everything that decides their tokens, bytes of text."""
    texts: list[str] = []
    digest = hashlib.blake2b(basis, digest_size=12)
    characters = size = 0
    for source in sources:
        for number, text in enumerate(read_documents(source, settings), start=1):
            try:
                data = text.encode()
            except UnicodeEncodeError:
                raise InputError(
                    f"{source.path or source.name}: document {number} holds half a surrogate pair; remove it"
                ) from None
            digest.update(len(data).to_bytes(8, "little") + data)
            texts.append(text)
            characters += len(text)
            size += len(data)
            if characters >= CHUNK_CHARACTERS:
                yield texts, digest.hexdigest(), size
                texts, digest, characters, size = [], hashlib.blake2b(basis, digest_size=12), 0, 0
    if texts:
        yield texts, digest.hexdigest(), size


_Submit = Callable[[list[str], Path], None]


@contextmanager
def _workers(settings: Settings, tokenizer: Tokenizer, vocabulary: Path, processes: int) -> Iterator[_Submit]:
    """Give a function that has a chunk processed, here or elsewhere; on leaving, all are done."""
    if processes == 1:
        worker = _Worker(settings, tokenizer)
        yield worker.process
        return
    Pipeline(settings)  # what it cannot do is said here, not by a broken pool
    pending: collections.deque[Future[None]] = collections.deque()
    pool = ProcessPoolExecutor(
        processes,
        # Forking a process that runs threads, as the tokenizer's library and NumPy do, may deadlock.
        multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(settings, vocabulary),
    )

    def submit(texts: list[str], path: Path) -> None:
        # Two chunks a process: no process waits for work, and memory stays bounded.
        while len(pending) >= 2 * processes:
            pending.popleft().result()
        pending.append(pool.submit(_process_chunk, texts, path))

    try:
        yield submit
        while pending:
            pending.popleft().result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, perhaps for want of memory; run the same command again to go on, "
            "with fewer --processes if it happens again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _assemble(chunks: Sequence[Path], writer: CorpusWriter, settings: Settings) -> dict[str, int]:
    """Write the chunks' documents into shards; returns the counts of those left out."""
    dropped: dict[str, int] = dict.fromkeys(REASONS, 0)
    repeated = _repeated(chunks) if settings.duplicate_filter else None
    threshold = int(settings.held_out * 2**64)
    number = 0
    for path in chunks:
        chunk = _Chunk.read(path)
        for reason, count in zip(REASONS, chunk.dropped.tolist(), strict=True):
            dropped[reason] += count
        sentence_ends = np.cumsum(chunk.document_lengths)
        token_ends = np.cumsum(chunk.sentence_lengths)
        sentence = token = 0
        for hashed, sentence_end in zip(chunk.hashes[:, 0].tolist(), sentence_ends.tolist(), strict=True):
            token_end = int(token_ends[sentence_end - 1])
            if repeated is not None and repeated[number]:
                dropped["duplicate"] += 1
            else:
                writer.add(
                    "held_out" if hashed < threshold else "train",
                    chunk.tokens[token:token_end],
                    chunk.sentence_lengths[sentence:sentence_end],
                )
            sentence, token, number = sentence_end, token_end, number + 1
    return dropped


def _repeated(chunks: Sequence[Path]) -> NDArray[np.bool_]:
    """For each document, whether an earlier one has the same hash."""
    documents = sum(len(_Chunk.read_hashes(path)) for path in chunks)
    repeated = np.zeros(documents, np.bool_)
    # Equal hashes meet in the same pass, and every pass holds its share of them only.
    passes = 1 + documents // _HASHES_AT_ONCE
    for turn in range(passes):
        hashes, positions, start = [], [], 0
        for path in chunks:
            found = _Chunk.read_hashes(path)
            mine = np.flatnonzero(found[:, 1] % np.uint64(passes) == turn)
            hashes.append(found[mine])
            positions.append(mine + start)
            start += len(found)
        if not hashes:
            break
        together = np.concatenate(hashes)
        _, first = np.unique(together.view(np.dtype("V16")).ravel(), return_index=True)
        again = np.ones(len(together), np.bool_)
        again[first] = False
        repeated[np.concatenate(positions)[again]] = True
    return repeated
