"""Checkpoint -> OpenVINO: ``model.xml`` and ``model.bin``.

The grouped layers are one matrix product per group, in int8 grouped convolutions, which are faster there. int8 is
NNCF's post-training quantisation: ranges of the activations are taken from sentences, so they fit those of ordinary
English text. Embeddings are int8 with a scale per row. In fp16 the weights alone are halved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from squeezebert.artifact import OUTPUTS
from squeezebert.data.collate import collate
from squeezebert.export.build import Written
from squeezebert.export.formats import shipped_form
from squeezebert.export.golden import SENTENCES, probes
from squeezebert.export.graph import INPUTS, Graph, example, quiet
from squeezebert.export.rewrite import rewrite
from squeezebert.model.grouped import Form

PACKAGES = ("openvino", "nncf")
PRECISIONS = ("fp32", "fp16", "int8")
HEADS = tuple(OUTPUTS)
MODEL, WEIGHTS = "model.xml", "model.bin"

_INT8_TOLERANCE = 0.25
"""Above the other formats': ranges of activations that are fixed beforehand fit no text exactly. On a tiny model of
random weights the largest difference was 10 % of the largest logit, and 3 % in ONNX, whose ranges follow each text."""
_JOINED = 5  # sentences of the longer calibration texts, some 60 to 100 tokens


def convert(graph: Graph, folder: Path, precision: str, form: Form | None = None) -> Written:
    """Write ``model.xml`` and ``model.bin``; batch and length stay open."""
    import openvino

    int8 = precision == "int8"
    form = form or shipped_form("openvino", precision)
    module = rewrite(graph.module, form, int8_embeddings=int8)
    with quiet():
        model = openvino.convert_model(module, example_input=dict(zip(INPUTS, example(), strict=True)))
        _name(model, graph.outputs)
        if int8:
            model = _quantize(model, graph)
        openvino.save_model(model, folder / MODEL, compress_to_fp16=precision == "fp16")
    return Written(form=form, files=(MODEL, WEIGHTS), tolerance=_INT8_TOLERANCE if int8 else None)


def _name(model: Any, outputs: tuple[str, ...]) -> None:
    for side, names in ((model.inputs, INPUTS), (model.outputs, outputs)):
        for tensor, name in zip(side, names, strict=True):
            tensor.get_tensor().set_names({name})


def _quantize(model: Any, graph: Graph) -> Any:
    """Quantise weights and activations.

    Weights keep seven bits everywhere: before VNNI, x86 multiplies int8 in pairs whose sum saturates at 16 bits, and an
    artifact must be right wherever it is run.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    samples = calibration(graph)
    return nncf.quantize(
        model,
        nncf.Dataset(samples),
        subset_size=len(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
    )


def calibration(graph: Graph) -> list[dict[str, Any]]:
    """Inputs that the activations' ranges are taken from.

    Sentences one by one, and several in a row; and random tokens over a spread of lengths (others than verification
    draws), for with ranges from sentences alone an unusual text would be cut off at them.
    """
    tokenizer, vocab_size = graph.loaded.tokenizer, graph.loaded.config.vocab_size
    found = probes(None, vocab_size=vocab_size, max_length=graph.max_length, pair=False, seed=1)
    samples = [(each.ids, each.mask, each.types) for each in found]
    if tokenizer is not None:
        longer = [" ".join(SENTENCES[start : start + _JOINED]) for start in range(0, len(SENTENCES), 2)]
        texts = [*SENTENCES, *longer]
        pairs = [*texts[1:], texts[0]] if graph.loaded.extra.get("pair") is True else None
        for encoding in tokenizer.encode_batch(texts, pairs, max_length=graph.max_length):
            batch = collate([encoding], indices=[0])
            samples.append((batch.input_ids, batch.attention_mask, batch.token_type_ids))
    return [dict(zip(INPUTS, each, strict=True)) for each in samples]
