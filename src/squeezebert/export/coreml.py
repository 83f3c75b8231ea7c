"""Checkpoint -> Core ML: ``model.mlpackage``, for iOS 17 and macOS 14 on.

Core ML runs on Apple's systems only, so the artifact is not executed here: it is loaded back, and its specification and
weights are compared with the checkpoint's. In fp16, the default, Core ML may use the GPU and the Neural Engine; fp32 is
for the comparison of sizes. The grouped layers are one linear layer per group; which form is fastest on a phone has not
been measured. Batch and length stay open.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.artifact import OUTPUTS, Manifest
from squeezebert.errors import InputError, require
from squeezebert.export.build import Written
from squeezebert.export.graph import INPUTS, Graph, example, quiet
from squeezebert.export.rewrite import rewrite
from squeezebert.model.grouped import Form
from squeezebert.model.shapes import uses_pooler

PACKAGES = ("coremltools",)
PRECISIONS = ("fp32", "fp16")
HEADS = tuple(OUTPUTS)
MODEL = "model.mlpackage"

_MOST_ROWS = 64  # Core ML asks for a bound
_DEFAULT_LENGTH = 128
_DECODER_BIAS = "model.mlm.bias"


def convert(graph: Graph, folder: Path, precision: str, form: Form | None = None) -> Written:
    """Write ``model.mlpackage``; batch and length stay open.

    Raises:
        ValueError: Another form than "split" is asked for: here is nothing to compare them on.
    """
    if form not in (None, "split"):
        raise ValueError(f"Core ML's grouped layers are split, not {form}")
    import coremltools
    import torch

    rows = coremltools.RangeDim(1, _MOST_ROWS, default=1)
    tokens = coremltools.RangeDim(1, graph.max_length, default=min(_DEFAULT_LENGTH, graph.max_length))
    kind = coremltools.precision.FLOAT16 if precision == "fp16" else coremltools.precision.FLOAT32
    with quiet():
        module = rewrite(graph.module, "split", int8_embeddings=False)
        model = coremltools.convert(
            torch.jit.trace(module, example()),  # type: ignore[no-untyped-call]
            inputs=[coremltools.TensorType(name=name, shape=(rows, tokens), dtype=np.int32) for name in INPUTS],
            outputs=[coremltools.TensorType(name=name, dtype=np.float32) for name in graph.outputs],
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS17,
            compute_precision=kind,
            skip_model_load=True,
        )
        config = graph.loaded.config
        model.short_description = f"SqueezeBERT, {graph.head}"
        if graph.head in ("sequence_classification", "token_classification"):
            model.user_defined_metadata["labels"] = "\n".join(config.labels)
        model.save(str(folder / MODEL))
    return Written(form="split", files=(MODEL,))


def inspect(folder: Path, manifest: Manifest, graph: Graph | None) -> list[str]:
    """Load a package back, and say what in it is not as it should be.

    Args:
        folder: The artifact.
        manifest: What it should be.
        graph: The checkpoint, to compare weights with; None: only inputs, outputs and labels are looked at, for
            whether the weights are those that were written is told by their hash.

    Raises:
        InputError: It is damaged.
        MissingExtraError: coremltools is not installed.
    """
    with quiet():
        coremltools = require("coremltools", "coreml")
        try:
            model = coremltools.models.MLModel(str(folder / MODEL), skip_model_load=True)
            program = model.get_spec()
        except Exception as error:  # coremltools raises what its libraries do
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{folder / MODEL}: not a package that coremltools reads ({reason})") from None
        found = _interface_differs(program.description, manifest)
        if graph is not None:
            found += _weights_differ(folder / MODEL, manifest.precision, graph)
    return found


def _interface_differs(description: Any, manifest: Manifest) -> list[str]:
    """What the program's inputs, outputs and labels say otherwise than the manifest."""
    found = []
    for what, features, names in (
        ("inputs", description.input, INPUTS),
        ("outputs", description.output, OUTPUTS[manifest.head]),
    ):
        stored = tuple(each.name for each in features)
        if stored != names:
            found.append(f"{what}: {', '.join(stored)}, where {', '.join(names)} are expected")
    for each in description.input:
        ranges = each.type.multiArrayType.shapeRange.sizeRanges
        most = ranges[1].upperBound if len(ranges) == 2 else 0
        if most != manifest.max_position_embeddings:
            found.append(f"length: {each.name} takes {most} tokens, not {manifest.max_position_embeddings}")
    labels = tuple(filter(None, description.metadata.userDefined["labels"].split("\n")))
    if labels != manifest.labels:
        found.append(f"labels: {', '.join(labels)} in the package, {', '.join(manifest.labels)} in the manifest")
    return found


def _weights_differ(package: Path, precision: str, graph: Graph) -> list[str]:
    """Which of the checkpoint's matrices, norms and biases are not in a package, to the last bit."""
    # Values of a few numbers, as a classifier's biases, stand in the program itself.
    files = [file for file in sorted(package.rglob("*")) if file.name == "weight.bin" or file.suffix == ".mlmodel"]
    stored = b"".join(file.read_bytes() for file in files)
    weights = rewrite(graph.module, "split", int8_embeddings=False).state_dict()
    if not uses_pooler(graph.head):  # converters leave out what no output depends on
        weights = {name: each for name, each in weights.items() if ".pooler." not in name}
    if _DECODER_BIAS in weights:  # in the program, rows that only pad the vocabulary are minus infinity
        weights[_DECODER_BIAS] = weights[_DECODER_BIAS][: graph.loaded.config.real_vocab_size]
    missing = [
        name
        for name, each in weights.items()
        if not any(form.tobytes() in stored for form in _stored_forms(each.numpy(), precision))
    ]
    return [f"weights: {', '.join(missing)} not as in the checkpoint"] if missing else []


def _stored_forms(values: NDArray[np.float32], precision: str) -> list[NDArray[Any]]:
    """What a package may hold for some values.

    In fp16 the converter keeps what would round to zero from it, in short vectors: it becomes the smallest number of
    its sign (``_check_underflow_to_zero`` of coremltools' ``passes/defs/quantization.py``).
    """
    if precision != "fp16":
        return [values.astype(np.float32)]
    rounded = values.astype(np.float16)
    smallest = np.nextafter(np.float16(0), np.float16(1))
    lifted = np.where((np.abs(rounded) <= smallest) & (values != 0), np.copysign(smallest, values), rounded)
    return [rounded, lifted.astype(np.float16)]
