"""The engine in C++ (native/): runs an exported model in int8, on the CPU, without torch.

Bound by :mod:`ctypes` over its C interface: no build step of its own, one library for every Python version, and the
interpreter's lock is released while it runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import squeezebert
from squeezebert import artifact
from squeezebert.errors import InputError
from squeezebert.host import usable_cpus
from squeezebert.runtime.engines.quantized import Origin, QuantizedEngine, quantize_checkpoint

if TYPE_CHECKING:
    from squeezebert.data.collate import Batch

LIBRARY_VARIABLE = "SQUEEZEBERT_LIBRARY"
"""Environment variable that names the library's file, in place of the one in the package."""

_MESSAGE_BYTES = 1024


class _Info(ctypes.Structure):
    """``sqb_info``."""

    _fields_ = (
        ("vocab_size", ctypes.c_int32),
        ("hidden_size", ctypes.c_int32),
        ("layers", ctypes.c_int32),
        ("max_positions", ctypes.c_int32),
        ("num_labels", ctypes.c_int32),
        ("per_token", ctypes.c_int32),
        ("has_pooler", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("instruction_set", ctypes.c_char_p),
    )


class _Outputs(ctypes.Structure):
    """``sqb_outputs``."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("logits", "pooled", "mean", "hidden"))


def library_path() -> Path | None:
    """File of the engine's library; None: this installation was built without it."""
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        return Path(named)
    name = {"win32": "squeezebert.dll", "darwin": "libsqueezebert.dylib"}.get(sys.platform, "libsqueezebert.so")
    # An editable installation has two folders: the sources', and the one of what was built.
    paths = (Path(folder) / name for folder in squeezebert.__path__)
    return next((path for path in paths if path.is_file()), None)


@cache
def _library() -> ctypes.CDLL:
    """Load the library.

    Raises:
        InputError: There is none, or it cannot be loaded.
    """
    path = library_path()
    if path is None:
        raise InputError(
            "this installation has no native engine: it was built where no C++17 compiler was at hand; with one, "
            "install again, or leave out --engine"
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be loaded ({error})") from None
    try:
        _declare(library)
    except AttributeError:
        raise InputError(f"{path}: an older build of the native engine; install squeezebert again") from None
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Give the functions of native/include/squeezebert.h their types.

    Raises:
        AttributeError: The library lacks one of them.
    """
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    library.sqb_load.argtypes = [text, ctypes.c_int32, text, ctypes.POINTER(pointer), text, size]
    library.sqb_load_memory.argtypes = [
        pointer, size, pointer, size, ctypes.c_int32, text, ctypes.POINTER(pointer), text, size,
    ]  # fmt: skip
    library.sqb_free.argtypes = [pointer]
    library.sqb_free.restype = None
    library.sqb_get_info.argtypes = [pointer, ctypes.POINTER(_Info)]
    library.sqb_get_info.restype = None
    library.sqb_run.argtypes = [
        pointer, pointer, pointer, pointer, ctypes.c_int32, ctypes.POINTER(_Outputs), text, size,
    ]  # fmt: skip
    library.sqb_run_masked.argtypes = [
        pointer, pointer, pointer, pointer, ctypes.c_int32, pointer, ctypes.c_int32, pointer, text, size,
    ]  # fmt: skip
    library.sqb_instruction_sets.restype = text


def instruction_sets() -> list[str]:
    """Names of the instruction sets that can run here, best first."""
    names: bytes = _library().sqb_instruction_sets()
    return names.decode("ascii").split()


def _raise(code: int, message: bytes) -> None:
    text = message.decode("utf-8", "replace")
    if code == 1:
        raise InputError(text)
    if code == 2:
        raise MemoryError(text)
    if code != 0:
        raise RuntimeError(f"native engine: {text}")


class NativeEngine(QuantizedEngine):
    """An int8 model, ready to run. Any number of threads may call it at once."""

    def __init__(self, manifest: artifact.Manifest, origin: Origin, handle: ctypes.c_void_p, tensors: bytes) -> None:
        super().__init__(manifest, origin)
        self._handle = handle
        # The engine reads the embeddings where they lie, so the bytes live as long as it does. When the program ends it
        # is not freed: a daemon thread may be running it.
        weakref.finalize(self, _release, handle, tensors).atexit = False
        self._info = _Info()
        _library().sqb_get_info(handle, ctypes.byref(self._info))

    @classmethod
    def load(
        cls, folder: str | Path, *, threads: int | None = None, instruction_set: str | None = None
    ) -> NativeEngine:
        """Load an exported folder.

        Args:
            folder: Made by ``squeezebert export native``.
            threads: Cores to use; None: those that this process may use.
            instruction_set: One of :func:`instruction_sets`; None: the best.

        Raises:
            InputError: The folder cannot be read, an argument is out of range, or this installation has no engine.
        """
        origin = Origin.of_artifact(folder)
        manifest = artifact.read_manifest(folder)
        handle = _open(_library().sqb_load, [os.fsencode(folder)], threads, instruction_set)
        engine = cls(manifest, origin, handle, b"")
        if origin != Origin.of_artifact(folder):
            raise InputError(f"{folder}: was replaced while it was being loaded; load it again")
        return engine

    @classmethod
    def from_checkpoint(
        cls,
        source: str | Path,
        head: str | None = None,
        *,
        threads: int | None = None,
        instruction_set: str | None = None,
    ) -> NativeEngine:
        """Load a checkpoint, quantising it in memory.

        Args:
            source: Folder or hub id.
            head: The head that is wanted; None: the one that it carries.
            threads: Cores to use; None: those that this process may use.
            instruction_set: One of :func:`instruction_sets`; None: the best.

        Raises:
            InputError: The checkpoint cannot be read, has a head that the engine lacks, an argument is out of range,
                or this installation has no engine.
            MissingExtraError: Its weights are no safetensors, and torch, which reads others, is not installed.
        """
        from safetensors.numpy import save

        library = _library()
        model, origin = quantize_checkpoint(source, head)
        config, tensors = json.dumps(model.config).encode(), save(model.tensors)
        parts = [config, len(config), tensors, len(tensors)]
        handle = _open(library.sqb_load_memory, parts, threads, instruction_set)
        return cls(model.manifest, origin, handle, tensors)

    @property
    def instruction_set(self) -> str:
        """Name of the instruction set in use."""
        name: bytes = self._info.instruction_set
        return name.decode("ascii")

    @property
    def threads(self) -> int:
        """Cores in use."""
        return int(self._info.threads)

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the logits of a batch. *Shape:* ``[B, K]``.

        Raises:
            InputError: A sequence is empty or too long, or an id is outside the vocabulary.
        """
        real_BT = batch.attention_mask.astype(bool)
        return self.run_ragged(
            batch.input_ids[real_BT], batch.token_type_ids[real_BT], real_BT.sum(axis=1), logits=True
        )["logits"]

    def run_ragged(
        self,
        ids_N: NDArray[Any],
        types_N: NDArray[Any] | None,
        lengths_B: NDArray[Any],
        *,
        logits: bool = False,
        pooled: bool = False,
        mean: bool = False,
        hidden: bool = False,
    ) -> dict[str, NDArray[np.float32]]:
        """Run sequences given as one row of tokens.

        Args:
            ids_N: Token ids, sequence after sequence.
            types_N: Segment of each token; None: all 0.
            lengths_B: Tokens of each sequence.
            logits: Give ``logits`` ``[B, K]`` (token classification: ``[N, K]``).
            pooled: Give ``pooled`` ``[B, C]``, tanh of a dense layer on the first token.
            mean: Give ``mean`` ``[B, C]``, the mean of a sequence's hidden states.
            hidden: Give ``hidden`` ``[N, C]``, the last hidden states.

        Raises:
            InputError: A sequence is empty or too long, an id is outside the vocabulary, or the model lacks an output.
        """
        lengths = _int32(lengths_B, "lengths")
        ids = _int32(ids_N, "ids")
        types = None if types_N is None else _int32(types_N, "segments")
        if (lengths < 0).any():
            raise InputError(f"a sequence has {lengths.min()} tokens; lengths cannot be negative")
        if lengths.sum(dtype=np.int64) != len(ids):
            raise InputError(f"{len(ids)} token ids, but the lengths add up to {lengths.sum(dtype=np.int64)}")
        if types is not None and len(types) != len(ids):
            raise InputError(f"{len(ids)} token ids, but {len(types)} segments: give one for each")
        channels, rows = int(self._info.hidden_size), len(lengths)
        labels = int(self._info.num_labels)
        shapes = {
            "logits": (len(ids) if self._info.per_token else rows, labels),
            "pooled": (rows, channels),
            "mean": (rows, channels),
            "hidden": (len(ids), channels),
        }
        asked = {"logits": logits, "pooled": pooled, "mean": mean, "hidden": hidden}
        arrays = {name: np.empty(shapes[name], np.float32) for name, wanted in asked.items() if wanted}
        outputs = _Outputs(**{name: array.ctypes.data for name, array in arrays.items()})
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        code = _library().sqb_run(
            self._handle,
            ids.ctypes.data,
            None if types is None else types.ctypes.data,
            lengths.ctypes.data,
            len(lengths),
            ctypes.byref(outputs),
            message,
            _MESSAGE_BYTES,
        )
        _raise(code, message.value)
        return arrays

    def outputs(
        self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], types_BT: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float32]]:
        """Compute every output of a batch that is padded at the end, by name (:data:`squeezebert.artifact.OUTPUTS`).

        Those of tokens are ``[B, T, ...]``, zeros at padding. An encoder without a pooler gives none.

        Raises:
            InputError: A sequence is empty or too long, or an id is outside the vocabulary.
        """
        real_BT = mask_BT.astype(bool)
        lengths_B = real_BT.sum(axis=1)

        def spread(values_N: NDArray[np.float32]) -> NDArray[np.float32]:
            values_BT = np.zeros((*real_BT.shape, values_N.shape[-1]), np.float32)
            values_BT[real_BT] = values_N
            return values_BT

        if self.manifest.head == "masked_lm":
            rows = zip(ids_BT, types_BT, lengths_B.tolist(), strict=True)
            scores = [self.masked_logits(ids[:n].tolist(), range(n), types[:n]) for ids, types, n in rows]
            return {"logits": spread(np.concatenate(scores))}
        encoder = self.manifest.head == "encoder"
        found = self.run_ragged(
            ids_BT[real_BT], types_BT[real_BT], lengths_B, logits=not encoder, hidden=encoder,
            pooled=encoder and bool(self._info.has_pooler),
        )  # fmt: skip
        if encoder:
            found["last_hidden_state"] = spread(found.pop("hidden"))
        elif self._info.per_token:
            found["logits"] = spread(found["logits"])
        return found

    def masked_logits(
        self, ids_T: Sequence[int], positions: Sequence[int], types_T: NDArray[Any] | None = None
    ) -> NDArray[np.float32]:
        """Score the vocabulary at some places of one sequence, for a masked language model.

        Args:
            ids_T: Token ids.
            positions: Places among them.
            types_T: Segment of each token; None: all 0.

        Returns:
            ``[M, V]``; minus infinity in rows that only pad the vocabulary.

        Raises:
            InputError: The sequence is empty or too long, an id is outside the vocabulary, a place outside the
                sequence, or the model has no such head.
        """
        ids, places = _int32(np.asarray(ids_T), "ids"), _int32(np.asarray(positions), "positions")
        types = None if types_T is None else _int32(types_T, "segments")
        if types is not None and len(types) != len(ids):
            raise InputError(f"{len(ids)} token ids, but {len(types)} segments: give one for each")
        logits = np.empty((len(places), int(self._info.vocab_size)), np.float32)
        length = np.array([len(ids)], np.int32)
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        code = _library().sqb_run_masked(
            self._handle,
            ids.ctypes.data,
            None if types is None else types.ctypes.data,
            length.ctypes.data,
            1,
            places.ctypes.data,
            len(places),
            logits.ctypes.data,
            message,
            _MESSAGE_BYTES,
        )
        _raise(code, message.value)
        return logits


def _open(load: Any, source: list[Any], threads: int | None, instruction_set: str | None) -> ctypes.c_void_p:
    """Call one of the library's functions that load a model."""
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    handle = ctypes.c_void_p()
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    wanted = None if instruction_set is None else instruction_set.encode()
    code = load(*source, threads or usable_cpus(), wanted, ctypes.byref(handle), message, _MESSAGE_BYTES)
    _raise(code, message.value)
    return handle


def _release(handle: ctypes.c_void_p, tensors: bytes) -> None:
    """Free an engine, and only then the bytes that it reads."""
    _library().sqb_free(handle)
    del tensors


def _int32(values: NDArray[Any], what: str) -> NDArray[np.int32]:
    """A contiguous row of int32; a number beyond its range is held at its end, which the engine refuses."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{what} must be one row of whole numbers")
    limits = np.iinfo(np.int32)
    return np.ascontiguousarray(np.clip(array, limits.min, limits.max), dtype=np.int32)
