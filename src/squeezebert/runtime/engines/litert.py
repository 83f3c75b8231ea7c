"""LiteRT artifacts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.artifact import Manifest
from squeezebert.errors import InputError, require
from squeezebert.runtime.engines.exported import Arrays, run_rows

MODEL = "model.tflite"


def signature_name(tokens: int) -> str:
    """The function of ``model.tflite`` that takes a number of tokens."""
    return f"tokens_{tokens}"


def load(folder: Path, manifest: Manifest, threads: int) -> LiteRtSession:
    """Open ``model.tflite``.

    Raises:
        InputError: It is damaged.
        MissingExtraError: ai-edge-litert is not installed.
    """
    runtime = require("ai_edge_litert.interpreter", "litert")
    try:
        interpreter = runtime.Interpreter(str(folder / MODEL), num_threads=threads)
        runners = {length: interpreter.get_signature_runner(signature_name(length)) for length in manifest.lengths}
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{folder / MODEL}: not a model that litert reads ({reason})") from None
    return LiteRtSession(runners)


class LiteRtSession:
    """Graphs of one sequence, one for each of some lengths. Threads may share them; they take turns."""

    ragged = True

    def __init__(self, runners: dict[int, Any]) -> None:
        self._runners = runners  # tokens -> function
        self._lock = threading.Lock()

    def run(self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], types_BT: NDArray[np.int64]) -> Arrays:
        """Compute a batch, as :meth:`squeezebert.runtime.engines.exported.Session.run`."""
        return run_rows(self._run_row, ids_BT, mask_BT, types_BT, tuple(self._runners))

    def _run_row(self, ids_1T: NDArray[np.int64], mask_1T: NDArray[np.int64], types_1T: NDArray[np.int64]) -> Arrays:
        inputs = {"input_ids": ids_1T, "attention_mask": mask_1T, "token_type_ids": types_1T}
        with self._lock:
            outputs = self._runners[ids_1T.shape[1]](**{name: each.astype(np.int32) for name, each in inputs.items()})
        return [outputs[name] for name in sorted(outputs)]
