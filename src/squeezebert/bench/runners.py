"""A contender, loaded: NumPy arrays in, logits out; a function per stack, none of which imports more than it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.bench.cases import LONGEST
from squeezebert.bench.contenders import Contender

if TYPE_CHECKING:
    from squeezebert.runtime.engines import Engine

Run = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], Any]
"""Ids, mask and segments, ``[B, T]`` each -> logits."""
Row = tuple[str, str | None]
"""A text, and its second one."""
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is told."""

    contender: Contender
    model: str | None
    """Folder of the exported model, or of the checkpoint."""
    tokenizer: str
    """Folder of the vocabulary."""
    size: str
    """Size of SqueezeBERT."""
    vocab_size: int
    threads: int


@dataclass(frozen=True)
class Loaded:
    """A contender, ready to run."""

    run: Run
    classify: Callable[[Sequence[Row]], Any]
    """Texts -> logits, tokenization included."""


def load(job: Job) -> Loaded:
    """Load a contender in this process."""
    return {
        "native": _native, "torch": _torch, "transformers": _transformers, "onnxruntime": _onnxruntime,
        "openvino": _openvino,
    }[job.contender.stack](job)  # fmt: skip


def _native(job: Job) -> Loaded:
    from squeezebert.runtime.engines.native import NativeEngine

    assert job.model is not None
    chosen = job.contender.instruction_set
    return _ours(NativeEngine.load(job.model, threads=job.threads, instruction_set=chosen), job)


def _torch(job: Job) -> Loaded:
    from squeezebert.runtime.engines.torch import TorchEngine

    assert job.model is not None
    return _ours(TorchEngine.load(job.model, device="cpu", threads=job.threads), job)


def _ours(engine: Engine, job: Job) -> Loaded:
    """This package's engines, through its own predictor."""
    from squeezebert.data.collate import Batch
    from squeezebert.runtime.predictor import Predictor
    from squeezebert.tokenizer import Tokenizer

    predictor = Predictor(engine, Tokenizer.load(job.tokenizer), batch_size=_BATCH, max_length=LONGEST)

    def run(ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], types_BT: NDArray[np.int64]) -> Any:
        return engine.run(Batch(ids_BT, mask_BT, types_BT, None, None, np.arange(len(ids_BT))))

    return Loaded(run, lambda rows: list(predictor.logits(rows)))


def _transformers(job: Job) -> Loaded:
    import torch

    from squeezebert.bench.peers import build

    torch.set_num_threads(job.threads)
    model = build(job.contender.model, job.contender.form, job.size, job.vocab_size)

    @torch.inference_mode()
    def run(*arrays: NDArray[np.int64]) -> Any:
        return model(*map(torch.from_numpy, arrays)).numpy()

    return _padded(run, job)


def _onnxruntime(job: Job) -> Loaded:
    import onnxruntime

    from squeezebert.bench.exports import ONNX

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.log_severity_level = 3
    assert job.model is not None
    session = onnxruntime.InferenceSession(Path(job.model) / ONNX, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*arrays: NDArray[np.int64]) -> Any:
        return session.run(None, dict(zip(names, arrays, strict=True)))[0]

    return _padded(run, job)


def _openvino(job: Job) -> Loaded:
    import openvino

    from squeezebert.bench.exports import OPENVINO

    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1
    }  # fmt: skip
    # What is left of an int8 model runs in whatever the runtime chooses.
    hint = {"fp32": "f32", "bf16": "bf16"}.get(job.contender.precision)
    if hint is not None:
        settings["INFERENCE_PRECISION_HINT"] = hint
    assert job.model is not None
    request = openvino.Core().compile_model(Path(job.model) / OPENVINO, "CPU", settings).create_infer_request()

    def run(*arrays: NDArray[np.int64]) -> Any:
        return request.infer(arrays)[0]

    return _padded(run, job)


def _padded(run: Run, job: Job) -> Loaded:
    """A peer: all texts tokenized and sorted by length, padded in batches."""
    from squeezebert.data.collate import collate, sorted_batches
    from squeezebert.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(job.tokenizer)

    def classify(rows: Sequence[Row]) -> Any:
        pairs = [pair for _, pair in rows]
        encodings = tokenizer.encode_batch(
            [text for text, _ in rows], None if pairs[0] is None else pairs, max_length=LONGEST
        )
        logits: list[Any] = [None] * len(rows)
        for indices in sorted_batches([len(encoding.input_ids) for encoding in encodings], _BATCH):
            batch = collate([encodings[i] for i in indices], indices=indices, pad_id=tokenizer.pad_id)
            scores = run(batch.input_ids, batch.attention_mask, batch.token_type_ids)
            for index, row in zip(indices, scores, strict=True):
                logits[index] = np.array(row)
        return logits

    return Loaded(run, classify)
