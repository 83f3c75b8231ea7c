"""The formats of ``squeezebert export``, their precisions, and a line of help for each. Imports nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squeezebert.model.grouped import Form

ENGINE_PRECISIONS = ("int8",)
"""Of the native engine's formats."""

ENGINE: dict[str, str] = {
    "native": "int8, a folder for this package's own engine",
    "web": "int8, a folder for any static host: a page that runs the model in the browser",
}
"""Formats for the native engine -> help; verified where torch and the engine are installed."""

CONVERTED: dict[str, tuple[tuple[str, ...], str]] = {
    "onnx": (("fp32", "int8"), "for ONNX Runtime, and its mobile builds (.ort)"),
    "openvino": (("fp32", "fp16", "int8"), "for OpenVINO"),
    "executorch": (("fp32", "int8"), "for ExecuTorch, on phones"),
    "litert": (("fp32", "int8"), "for LiteRT (TensorFlow Lite), on phones"),
    "coreml": (("fp32", "fp16"), "for Core ML, on Apple's systems; not executed here"),
}
"""Formats of other runtimes -> precisions and help; converted and verified by :mod:`squeezebert.export.build`."""


_FORMS: dict[tuple[str, str], Form] = {
    ("onnx", "fp32"): "conv",
    ("openvino", "int8"): "conv",
    ("litert", "fp32"): "bmm",
    ("litert", "int8"): "bmm",
}


def shipped_form(format: str, precision: str) -> Form:
    """Form of the grouped layers in which a converted format is written.

    The fastest on AVX2 for ``base``, at most sizes of a batch at least (``benchmarks/results/forms_*``).
    """
    return _FORMS.get((format, precision), "split")
