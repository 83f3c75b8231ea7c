"""Teachers' outputs, computed once for each teacher, list of texts and length, and kept on disk.

Computed longest texts first, in batches of like length, the outputs are appended to a file row by row; what is there
after a kill is not computed again. The finished file, in the order of the examples, is memory-mapped. Several processes
that want the same outputs wait for the first of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from squeezebert.data.examples import Example
from squeezebert.durations import duration
from squeezebert.errors import InputError
from squeezebert.files import atomic_path
from squeezebert.training.progress import say
from squeezebert.training.teacher import Reader, Teacher

_LAYOUT = 1
_TOKENS = {"cpu": 8_192, "cuda": 65_536}
"""Most tokens of a batch, padding included."""
_TEXTS_AT_A_TIME = 10_000
_SAY_EVERY = 30.0
_SAVE_EVERY = 10.0


def cache_folder() -> Path:
    """Where outputs are kept: ``squeezebert/teachers`` in the user's cache, which ``XDG_CACHE_HOME`` may move."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "squeezebert" / "teachers"


def teacher_logits(
    teacher: Teacher, examples: Sequence[Example], *, max_length: int, device: torch.device, folder: Path | None = None
) -> NDArray[np.float32]:
    """Give a teacher's outputs, computing what the cache does not hold.

    Args:
        teacher: Whom to ask.
        examples: What about; labels are not looked at.
        max_length: Tokens kept of a text or pair, in the teacher's own vocabulary.
        device: Where to compute.
        folder: Where to keep the outputs; None: :func:`cache_folder`.

    Returns:
        Logits in the examples' order, memory-mapped. *Shape:* ``[n, K]``, ``K`` being the teacher's labels.

    Raises:
        InputError: The teacher cannot be loaded, or an output is not a finite number.
        OSError: The cache cannot be written, or the disk is full.
    """
    folder = folder or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    name = _key(teacher, examples, max_length)
    path = folder / f"{name}.npy"
    shape = (len(examples), len(teacher.labels))
    with FileLock(folder / f"{name}.lock"):
        kept = _read(path, shape)
        if kept is None:
            reader = teacher.load(device, max_length)
            lengths = np.concatenate([reader.lengths(part) for part in _parts(examples)])
            order = np.argsort(-lengths, kind="stable")
            partial = folder / f"{name}.part"
            _compute(teacher, reader, examples, order, lengths, _TOKENS[device.type], partial)
            rows = np.fromfile(partial, np.float32).reshape(shape)
            result = np.empty_like(rows)
            result[order] = rows
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, result)
            partial.unlink()
            kept = _read(path, shape)
            assert kept is not None
    return kept


def fingerprint(examples: Sequence[Example]) -> str:
    """Hash of texts and their order; labels do not count."""
    digest = hashlib.sha256()
    for example in examples:
        for text in (example.text, example.pair):
            data = b"" if text is None else text.encode()
            digest.update(f"{-1 if text is None else len(data)},".encode() + data)
    return digest.hexdigest()


def _key(teacher: Teacher, examples: Sequence[Example], max_length: int) -> str:
    parts = [_LAYOUT, teacher.fingerprint, fingerprint(examples), max_length]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The outputs kept in a file; None where there are none, or the file is damaged."""
    try:
        array: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.float32 else None


def _compute(
    teacher: Teacher,
    reader: Reader,
    examples: Sequence[Example],
    order: NDArray[np.int64],
    lengths: NDArray[np.int64],
    budget: int,
    partial: Path,
) -> None:
    """Append the outputs that a file lacks, in the given order, which begins with the longest."""
    row_bytes = 4 * len(teacher.labels)
    done = partial.stat().st_size // row_bytes if partial.exists() else 0
    start = said = saved = time.monotonic()
    before = done
    say(f"teacher {teacher.source}: {len(order) - done:,} texts to read{f', {done:,} kept' if done else ''}")
    with partial.open("r+b" if partial.exists() else "wb") as file:
        # A kill may have cut the last row short.
        file.truncate(done * row_bytes)
        file.seek(0, os.SEEK_END)
        while done < len(order):
            indices = order[done : done + max(1, budget // int(lengths[order[done]]))]
            logits = reader.logits([examples[index] for index in indices])
            if logits.shape[1] != len(teacher.labels):
                raise InputError(
                    f"{teacher.source}: {logits.shape[1]} outputs, but its config.json names {len(teacher.labels)}"
                )
            if not np.isfinite(logits).all():
                raise InputError(f"{teacher.source}: its outputs are not all finite numbers; it cannot teach")
            file.write(logits.tobytes())
            done += len(indices)
            now = time.monotonic()
            if now - saved > _SAVE_EVERY:
                saved = now
                file.flush()
            if now - said > _SAY_EVERY:
                said = now
                left = (len(order) - done) / (done - before) * (now - start)
                say(f"teacher {teacher.source}: {done:,} of {len(order):,} texts, {duration(left)} left")


def _parts(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    for start in range(0, len(examples), _TEXTS_AT_A_TIME):
        yield examples[start : start + _TEXTS_AT_A_TIME]
