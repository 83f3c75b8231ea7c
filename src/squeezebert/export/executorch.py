"""Checkpoint -> ExecuTorch: ``model.pte``, for its XNNPACK backend.

The grouped layers are one linear layer per group: ExecuTorch's quantiser leaves grouped convolutions in fp32, and its
convolutions take no open length. Weights are int8 with a scale per output, activations are quantised as they come,
embeddings are int8 with a scale per row. The length stays open, the batch is one sequence: XNNPACK reshapes with one
open dimension only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezebert.artifact import OUTPUTS
from squeezebert.export.build import Written
from squeezebert.export.formats import shipped_form
from squeezebert.export.graph import INPUTS, Graph, example, quiet
from squeezebert.export.rewrite import rewrite
from squeezebert.model.grouped import Form

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

PACKAGES = ("executorch", "torchao")
PRECISIONS = ("fp32", "int8")
HEADS = tuple(OUTPUTS)
MODEL = "model.pte"


def convert(graph: Graph, folder: Path, precision: str, form: Form | None = None) -> Written:
    """Write ``model.pte``; the length stays open."""
    int8 = precision == "int8"
    form = form or shipped_form("executorch", precision)
    with quiet():
        module = rewrite(graph.module, form, int8_embeddings=int8)
        if int8:
            module = _quantize(module, graph.max_length)
        program = _lower(_trace(module, graph.max_length), int8=int8)
        with (folder / MODEL).open("wb") as file:
            program.write_to_file(file)
    return Written(form=form, files=(MODEL,))


def _trace(module: nn.Module, max_length: int) -> ExportedProgram:
    import torch

    tokens = torch.export.Dim("tokens", min=1, max=max_length)
    return torch.export.export(module, example(rows=1), dynamic_shapes=({1: tokens},) * len(INPUTS))


def _quantize(module: nn.Module, max_length: int) -> nn.Module:
    """Mark the linear layers' weights, and their inputs as they come, as int8."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    observed = prepare_pt2e(_trace(module, max_length).module(), quantizer)
    observed(*example(rows=1))  # weights are observed as they are used
    marked: nn.Module = convert_pt2e(observed)
    return marked


def _lower(program: ExportedProgram, *, int8: bool) -> Any:
    """Give XNNPACK what it runs, the rest to ExecuTorch's own kernels."""
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    partitioners = [XnnpackPartitioner()]
    if int8:
        # The quantised products first, each by itself: in one piece with others they would be taken apart again.
        dynamic = XnnpackPartitioner(config_precisions=ConfigPrecisionType.DYNAMIC_QUANT, per_op_mode=True)
        partitioners.insert(0, dynamic)
    return to_edge_transform_and_lower(program, partitioner=partitioners).to_executorch()
