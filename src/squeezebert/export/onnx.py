"""Checkpoint -> ONNX, for ONNX Runtime: ``model.onnx``, and ``model.ort`` for its mobile builds.

The grouped layers are grouped convolutions in fp32 and one matrix product per group in int8, whose products with signed
weights are the fastest that ONNX Runtime has (``benchmarks/results/forms_onnx_openvino_*``). int8 weights have a scale
per output, activations are quantised as they come, embeddings are int8 with a scale per row.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from squeezebert.artifact import OUTPUTS
from squeezebert.export.build import Written
from squeezebert.export.formats import shipped_form
from squeezebert.export.graph import INPUTS, Graph, example, quiet
from squeezebert.export.rewrite import rewrite
from squeezebert.model.grouped import Form

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
PRECISIONS = ("fp32", "int8")
HEADS = tuple(OUTPUTS)
MODEL, MOBILE = "model.onnx", "model.ort"

_OPSET = 20  # the first with a GELU of its own
_MOST_ROWS = 1 << 16  # torch.export asks for a bound


def convert(graph: Graph, folder: Path, precision: str, form: Form | None = None) -> Written:
    """Write ``model.onnx`` and ``model.ort``; batch and length stay open."""
    import onnx

    int8 = precision == "int8"
    form = form or shipped_form("onnx", precision)
    with quiet():
        model = _to_onnx(graph, form, int8=int8)
        if int8:
            _quantize(model, folder / MODEL, form)
        else:
            onnx.save(model, str(folder / MODEL))
        _to_ort(folder)
    return Written(form=form, files=(MODEL,), companions=(MOBILE,))


def _to_onnx(graph: Graph, form: Form, *, int8: bool) -> Any:
    """Trace the model."""
    import torch

    module = rewrite(graph.module, form, int8_embeddings=int8)
    rows = torch.export.Dim("batch", min=1, max=_MOST_ROWS)
    tokens = torch.export.Dim("tokens", min=1, max=graph.max_length)
    program = torch.onnx.export(
        module,
        example(),
        dynamo=True,
        dynamic_shapes=({0: rows, 1: tokens},) * len(INPUTS),
        opset_version=_OPSET,
        input_names=INPUTS,
        output_names=graph.outputs,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    # Shapes that the exporter notes for values in between contradict what the quantiser then infers.
    del model.graph.value_info[:]
    return model


def _quantize(model: Any, path: Path, form: Form) -> None:
    """Store the products' weights in int8, of seven bits.

    Convolutions want theirs unsigned; a scale per channel is for matrices, and not for a batch of them.

    Before VNNI, x86 multiplies int8 in pairs whose sum saturates at 16 bits: with all eight bits of a weight in use the
    results are wrong there (microsoft/onnxruntime#14642), and an artifact must be right wherever it is run.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="squeezebert-") as temporary:
        source = Path(temporary) / MODEL
        onnx.save(model, str(source))
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=["MatMul", "Gemm", *["Conv"] * (form == "conv")],
            per_channel=form == "split",
            reduce_range=True,
            weight_type=QuantType.QUInt8 if form == "conv" else QuantType.QInt8,
        )


def _to_ort(folder: Path) -> None:
    """Write ``model.ort`` beside ``model.onnx``: optimised beforehand, in a form that small builds read."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / MOBILE)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
