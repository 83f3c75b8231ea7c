"""ONNX artifacts, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.artifact import Manifest
from squeezebert.errors import InputError, require
from squeezebert.runtime.engines.exported import Arrays


def load(folder: Path, manifest: Manifest, threads: int) -> OnnxSession:
    """Open ``model.onnx``; else as :func:`open_file`."""
    return open_file(folder / "model.onnx", threads)


def open_file(path: Path, threads: int) -> OnnxSession:
    """Open a model in ONNX's form or in ONNX Runtime's own.

    Raises:
        InputError: It is damaged.
        MissingExtraError: onnxruntime is not installed.
    """
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; it warns of every value that it folds
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base
        raise InputError(f"{path}: not a model that onnxruntime reads ({error})") from None
    return OnnxSession(session)


class OnnxSession:
    """A graph of any batch and length. Any number of threads may call it at once."""

    ragged = False

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [each.name for each in session.get_inputs()]

    def run(self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], types_BT: NDArray[np.int64]) -> Arrays:
        """Compute a batch, as :meth:`squeezebert.runtime.engines.exported.Session.run`."""
        inputs = dict(zip(("input_ids", "attention_mask", "token_type_ids"), (ids_BT, mask_BT, types_BT), strict=True))
        outputs: Arrays = self._session.run(None, {name: inputs[name] for name in self._names})
        return outputs
