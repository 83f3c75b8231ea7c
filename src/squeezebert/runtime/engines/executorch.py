"""ExecuTorch artifacts."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.artifact import Manifest
from squeezebert.errors import InputError, require
from squeezebert.runtime.engines.exported import Arrays, run_rows

_POOL = threading.Lock()
_pool_is_set = False


def load(folder: Path, manifest: Manifest, threads: int) -> ExecuTorchSession:
    """Open ``model.pte``.

    ExecuTorch has one pool of threads per process, and the programs that are loaded hold on to it: the first model
    decides how many there are.

    Raises:
        InputError: It is damaged.
        MissingExtraError: executorch is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its interface for Python calls itself experimental
        runtime = require("executorch.runtime", "executorch")
        _set_pool(threads)
    try:
        program = runtime.Runtime.get().load_program(folder / "model.pte")
        method = program.load_method("forward")
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{folder / 'model.pte'}: not a program that executorch reads ({reason})") from None
    return ExecuTorchSession(program, method)


def _set_pool(threads: int) -> None:
    from executorch.extension.pybindings import portable_lib

    global _pool_is_set
    with _POOL:
        if not _pool_is_set and portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)
        _pool_is_set = True


class ExecuTorchSession:
    """A graph of one sequence of any length. Threads may share it; they take turns."""

    ragged = True

    def __init__(self, program: Any, method: Any) -> None:
        self._program = program  # the method reads from it
        self._method = method
        self._lock = threading.Lock()

    def run(self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], types_BT: NDArray[np.int64]) -> Arrays:
        """Compute a batch, as :meth:`squeezebert.runtime.engines.exported.Session.run`."""
        return run_rows(self._run_row, ids_BT, mask_BT, types_BT)

    def _run_row(self, *inputs_1T: NDArray[np.int64]) -> Arrays:
        import torch

        with self._lock:
            return [each.numpy() for each in self._method.execute([torch.from_numpy(each) for each in inputs_1T])]
