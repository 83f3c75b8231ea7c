"""The forms of the grouped layers that no export ships: still the same model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from squeezebert import artifact
from squeezebert.artifact import TOLERANCES
from squeezebert.bench import forms

for _package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_package)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "form"), [("fp32", "bmm"), ("int8", "bmm"), ("int8", "conv")])
def test_other_form_equals_pytorch(
    precision: str, form: str, save_classifier: Callable[..., Path], tmp_path: Path
) -> None:
    source = save_classifier(num_hidden_layers=1)
    forms.make(format="onnx", precision=precision, form=form, source=str(source), target=str(tmp_path / "artifact"))
    manifest = artifact.read_manifest(tmp_path / "artifact")
    assert (manifest.precision, manifest.form) == (precision, form)
    assert manifest.report is not None
    assert 0 < manifest.report["relative_difference"] <= TOLERANCES[precision]
