from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from squeezebert import artifact
from squeezebert.artifact import TOLERANCES
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.export import golden as goldens
from squeezebert.runtime.engines.exported import ExportedEngine

for _package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_package)

ExportOnce = Callable[..., Path]


def slow_only(report: artifact.Mapping[str, object]) -> bool:
    """Whether the only check that fails, if any, is that of speed, which a tiny model need not pass."""
    failed = report["failed"]
    assert isinstance(failed, list)
    return all(line.startswith("latency: ") for line in failed)


@pytest.mark.parametrize(("precision", "form"), [("fp32", "conv"), ("int8", "split")])
def test_equals_pytorch_over_lengths_and_batches(export_once: ExportOnce, precision: str, form: str) -> None:
    manifest = artifact.read_manifest(export_once("onnx", precision))
    assert (manifest.format, manifest.precision, manifest.form) == ("onnx", precision, form)
    assert set(manifest.files) == {"model.onnx"}
    assert set(manifest.companions) == {"model.ort"}
    report = manifest.report
    assert report is not None
    assert slow_only(report)
    assert report["relative_difference"] <= TOLERANCES[precision]
    assert report["rows"] >= 15 + 24  # the spread of lengths, and the sentences
    if precision == "int8":
        assert report["bytes"] < report["fp32_bytes"]  # of a tiny model the graph itself is a good part


def test_int8_holds_products_and_embeddings(export_once: ExportOnce) -> None:
    import onnx

    graph = onnx.load(export_once("onnx", "int8") / "model.onnx").graph
    kinds = [node.op_type for node in graph.node]
    # 2 layers x (query, key, value, widening, narrowing of 4 groups, output of 1), pooler and classifier.
    assert kinds.count("MatMulInteger") == 2 * (5 * 4 + 1) + 2
    floats = sum(int(np.prod(each.dims)) for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT)
    whole = sum(int(np.prod(each.dims)) for each in graph.initializer if each.data_type == onnx.TensorProto.INT8)
    assert floats < 0.1 * whole


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_mobile_file_gives_the_same(export_once: ExportOnce, precision: str) -> None:
    import onnxruntime

    folder = export_once("onnx", precision)
    session = onnxruntime.InferenceSession(str(folder / "model.ort"))
    engine = ExportedEngine.load(folder)
    for probe in goldens.load(folder).probes:
        inputs = {"input_ids": probe.ids, "attention_mask": probe.mask, "token_type_ids": probe.types}
        want = engine.outputs(probe.ids, probe.mask, probe.types)["logits"]
        np.testing.assert_allclose(session.run(None, inputs)[0], want, atol=TOLERANCES["fp32"] * np.abs(want).max())


@pytest.mark.parametrize("head", [head for head in artifact.OUTPUTS if head != "sequence_classification"])
def test_every_head(export_once: ExportOnce, head: str) -> None:
    manifest = artifact.read_manifest(export_once("onnx", "fp32", head))
    assert manifest.head == head
    assert manifest.labels == (("LABEL_0", "LABEL_1", "LABEL_2") if head == "token_classification" else ())
    assert manifest.report is not None
    assert manifest.report["failed"] == []


def test_masked_lm_in_int8(export_once: ExportOnce) -> None:
    report = artifact.read_manifest(export_once("onnx", "int8", "masked_lm")).report
    assert report is not None
    assert slow_only(report)


def test_classify_runs_it(export_once: ExportOnce, classifier_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["a great film", "dull", "it is not so very good but who was long"]
    folder = export_once("onnx", "fp32")
    assert main(["classify", "--model", str(folder), *texts]) == 0
    got = capsys.readouterr().out
    assert main(["classify", "--model", str(classifier_folder), "--engine", "torch", *texts]) == 0
    assert capsys.readouterr().out == got


def test_a_damaged_file_is_one_line(export_once: ExportOnce, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(export_once("onnx", "fp32"), tmp_path / "a")
    model = tmp_path / "a" / "model.onnx"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a model that onnxruntime reads"):
        ExportedEngine.load(tmp_path / "a")


def test_a_wrong_scale_is_refused(export_once: ExportOnce, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    import onnx
    from onnx import numpy_helper

    shutil.copytree(export_once("onnx", "int8"), tmp_path / "a")
    model = onnx.load(tmp_path / "a" / "model.onnx")
    scale = next(each for each in model.graph.initializer if "pooler" in each.name and each.name.endswith("_scale"))
    scale.CopyFrom(numpy_helper.from_array(4 * numpy_helper.to_array(scale), scale.name))
    onnx.save(model, tmp_path / "a" / "model.onnx")
    assert main(["export", "verify", str(tmp_path / "a")]) == 3
    assert "fails: difference: " in capsys.readouterr().err
