"""The engine in C++ (native/): runs an exported model in int8, on the CPU, without torch.

Bound by :mod:`ctypes` over its C interface: no build step of its own, one library for every Python version, and the
interpreter's lock is released while it runs.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squeezebert import artifact
from squeezebert.errors import InputError
from squeezebert.runtime.engines import kind_of

if TYPE_CHECKING:
    from squeezebert.data.collate import Batch
    from squeezebert.data.tasks import Kind
    from squeezebert.tokenizer import Tokenizer

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
    path = Path(__file__).resolve().parents[2] / name
    return path if path.is_file() else None


@cache
def _library() -> ctypes.CDLL:
    """Load the library.

    Raises:
        InputError: There is none, or it cannot be loaded.
    """
    path = library_path()
    if path is None:
        raise InputError("this installation has no native engine: it was built where no C++17 compiler was at hand")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be loaded ({error})") from None
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    library.sqb_load.argtypes = [text, ctypes.c_int32, text, ctypes.POINTER(pointer), text, size]
    library.sqb_free.argtypes = [pointer]
    library.sqb_free.restype = None
    library.sqb_get_info.argtypes = [pointer, ctypes.POINTER(_Info)]
    library.sqb_get_info.restype = None
    library.sqb_run.argtypes = [
        pointer, pointer, pointer, pointer, ctypes.c_int32, ctypes.POINTER(_Outputs), text, size,
    ]  # fmt: skip
    library.sqb_instruction_sets.restype = text
    return library


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


class NativeEngine:
    """An exported model, ready to run. Any number of threads may call it at once.

    Attributes:
        tokenizer: The model's tokenizer; None where the folder has none.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None, instruction_set: str | None = None) -> None:
        self._manifest = artifact.read_manifest(folder)
        self._folder = Path(folder)
        library = _library()
        handle = ctypes.c_void_p()
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}")
        wanted = None if instruction_set is None else instruction_set.encode()
        code = library.sqb_load(
            os.fsencode(folder), threads or 0, wanted, ctypes.byref(handle), message, _MESSAGE_BYTES
        )
        _raise(code, message.value)
        self._handle = handle
        self._free = weakref.finalize(self, library.sqb_free, handle)
        info = _Info()
        library.sqb_get_info(handle, ctypes.byref(info))
        self._info = info

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
        return cls(folder, threads=threads, instruction_set=instruction_set)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The vocabulary beside the weights; None: there is none."""
        from squeezebert.tokenizer import Tokenizer

        names = ("tokenizer.json", "vocab.txt")
        return Tokenizer.load(self._folder) if any((self._folder / name).exists() for name in names) else None

    @property
    def instruction_set(self) -> str:
        """Name of the instruction set in use."""
        name: bytes = self._info.instruction_set
        return name.decode("ascii")

    @property
    def threads(self) -> int:
        """Cores in use."""
        return int(self._info.threads)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs in order."""
        return self._manifest.labels

    @property
    def kind(self) -> Kind:
        """What the outputs stand for; where the model does not say: regression if there is one, else classes."""
        return kind_of(self._manifest.problem_type, len(self._manifest.labels))

    @property
    def max_length(self) -> int:
        """Longest sequence that the model takes, tokens."""
        return self._manifest.max_position_embeddings

    @property
    def default_length(self) -> int:
        """Length at which texts are cut unless told otherwise, tokens."""
        return self._manifest.max_length or self.max_length

    @property
    def pair(self) -> bool | None:
        """Whether an example is two texts; None: not known."""
        return self._manifest.pair

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
        if (
            lengths.sum(dtype=np.int64) != len(ids)
            or (types is not None and len(types) != len(ids))
            or (lengths < 0).any()
        ):
            raise InputError(f"{len(ids)} token ids, but the lengths add up to {lengths.sum(dtype=np.int64)}")
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

    def save(self, folder: str | Path, tokenizer: Tokenizer) -> None:
        """Copy the exported model, with its tokenizer, to a folder.

        Raises:
            OSError: ``folder`` cannot be written, or the disk is full.
        """
        import shutil

        from squeezebert.files import atomic_folder

        with atomic_folder(folder) as target:
            for name in (artifact.CONFIG, artifact.WEIGHTS):
                shutil.copyfile(self._folder / name, target / name)
            tokenizer.save(target)


def _int32(values: NDArray[Any], what: str) -> NDArray[np.int32]:
    """A contiguous row of int32; a number beyond its range is held at its end, which the engine refuses."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{what} must be one row of whole numbers")
    limits = np.iinfo(np.int32)
    return np.ascontiguousarray(np.clip(array, limits.min, limits.max), dtype=np.int32)
