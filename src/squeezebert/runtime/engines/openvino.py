"""OpenVINO artifacts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.artifact import Manifest
from squeezebert.errors import InputError, require
from squeezebert.runtime.engines.exported import Arrays


def load(folder: Path, manifest: Manifest, threads: int) -> OpenVinoSession:
    """Compile ``model.xml`` for the CPU.

    Raises:
        InputError: It is damaged.
        MissingExtraError: openvino is not installed.
    """
    openvino = require("openvino", "openvino")
    # fp32 is pinned: where there is bf16, OpenVINO would compute in it, with a thousand times the error.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    try:
        compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{folder / 'model.xml'}: not a model that openvino reads ({reason})") from None
    return OpenVinoSession(compiled.create_infer_request())


class OpenVinoSession:
    """A graph of any batch and length. Threads may share it; they take turns."""

    ragged = False

    def __init__(self, request: Any) -> None:
        self._request = request
        self._lock = threading.Lock()

    def run(self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], types_BT: NDArray[np.int64]) -> Arrays:
        """Compute a batch, as :meth:`squeezebert.runtime.engines.exported.Session.run`."""
        with self._lock:
            results = self._request.infer([ids_BT, mask_BT, types_BT], share_inputs=False)
            return [np.array(results[place], dtype=np.float32) for place in range(len(results))]
