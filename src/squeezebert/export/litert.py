"""Checkpoint -> LiteRT (TensorFlow Lite): ``model.tflite``.

The grouped layers are one batched product each, in LiteRT the fastest and the smallest form in most measurements
(``benchmarks/results/forms_litert_*``). The converter takes no open length, so the file has a signature for each of
several lengths, of one sequence a call; they share the weights. int8 has a scale per output, and per row of an
embedding; activations are quantised as they come.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from squeezebert.artifact import OUTPUTS
from squeezebert.export.build import Written
from squeezebert.export.formats import shipped_form
from squeezebert.export.graph import INPUTS, Graph, example, quiet
from squeezebert.export.rewrite import rewrite
from squeezebert.model.embeddings import Embeddings
from squeezebert.model.grouped import Form
from squeezebert.runtime.engines.litert import MODEL, signature_name

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGES = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert")
PRECISIONS = ("fp32", "int8")
HEADS = tuple(OUTPUTS)

_LENGTHS = (32, 128, 512)
"""Tokens. Few, since each adds its graph and, in int8, a scale and a zero point for each output of each layer: with a
fourth, `base` in int8 was 60.6 MB."""


def convert(graph: Graph, folder: Path, precision: str, form: Form | None = None) -> Written:
    """Write ``model.tflite``, for several lengths up to the longest."""
    lengths = (*(each for each in _LENGTHS if each < graph.max_length), graph.max_length)
    form = form or shipped_form("litert", precision)
    with quiet():
        module = rewrite(graph.module, form, int8_embeddings=False)
        for part in module.modules():
            if isinstance(part, Embeddings):
                part.register_forward_pre_hook(_look_positions_up)
        model = _to_tflite(module, lengths)
        (folder / MODEL).write_bytes(_quantize(model) if precision == "int8" else model)
    return Written(form=form, files=(MODEL,), lengths=lengths)


def _look_positions_up(_: nn.Module, ids: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Let positions depend on an input, or the converter makes an fp32 constant of their embeddings for each length."""
    input_ids, position_ids, token_type_ids = ids
    return input_ids, position_ids + input_ids.clamp(max=0), token_type_ids


def _to_tflite(module: nn.Module, lengths: tuple[int, ...]) -> bytes:
    import litert_torch

    litert_torch.config.show_progress = False
    converter = litert_torch.Converter()
    for length in lengths:
        inputs = dict(zip(INPUTS, example(1, length), strict=True))
        converter.add_signature(signature_name(length), module, sample_kwargs=inputs)
    content: bytes = converter.convert().model_content()
    return content


def _quantize(model: bytes) -> bytes:
    """Store weights of products and embeddings in int8."""
    from ai_edge_quantizer import quantizer, recipe

    quantised = quantizer.Quantizer(model)
    quantised.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    result = quantised.quantize(enable_progress_report=False)
    return bytes(result.quantized_model)
