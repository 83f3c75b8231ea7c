from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from squeezebert import artifact
from squeezebert.artifact import TOLERANCES
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.export import golden as goldens
from squeezebert.export.stored import digest
from squeezebert.files import read_json, write_json
from squeezebert.runtime.engines.exported import ExportedEngine

for _package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_package)

ExportOnce = Callable[..., Path]
Refused = Callable[[Path, Callable[[Path], None]], str]


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


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("head", [head for head in artifact.OUTPUTS if head != "sequence_classification"])
def test_every_head(check_head: Callable[..., artifact.Manifest], head: str, precision: str) -> None:
    manifest = check_head("onnx", precision, head)
    assert manifest.labels == (("LABEL_0", "LABEL_1", "LABEL_2") if head == "token_classification" else ())


def test_classify_runs_it(export_once: ExportOnce, classifier_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["a great film", "dull", "it is not so very good but who was long"]
    folder = export_once("onnx", "fp32")
    assert main(["classify", "--model", str(folder), *texts]) == 0
    got = capsys.readouterr().out
    assert main(["classify", "--model", str(classifier_folder), "--engine", "torch", *texts]) == 0
    assert capsys.readouterr().out == got


def test_a_damaged_file_is_one_line(export_once: ExportOnce, tmp_path: Path) -> None:
    shutil.copytree(export_once("onnx", "fp32"), tmp_path / "a")
    model = tmp_path / "a" / "model.onnx"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a model that onnxruntime reads"):
        ExportedEngine.load(tmp_path / "a")


def test_a_wrong_scale_is_refused(export_once: ExportOnce, refused: Refused) -> None:
    def damage(folder: Path) -> None:
        import onnx
        from onnx import numpy_helper

        model = onnx.load(folder / "model.onnx")
        scale = next(each for each in model.graph.initializer if "pooler" in each.name and each.name.endswith("_scale"))
        scale.CopyFrom(numpy_helper.from_array(4 * numpy_helper.to_array(scale), scale.name))
        onnx.save(model, folder / "model.onnx")

    said = refused(export_once("onnx", "int8"), damage)
    assert "fails: difference: " in said
    assert "model.ort: " not in said  # that one is as it was


def test_a_broken_mobile_file_is_refused(
    export_once: ExportOnce, refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, other = export_once("onnx", "int8"), export_once("onnx", "fp32")
    report = artifact.read_manifest(whole).report
    assert report is not None
    assert 0 < report["companions"]["model.ort"] <= TOLERANCES["int8"]

    def turn(folder: Path) -> None:
        """Turn one bit in the middle of the weights."""
        content = bytearray((folder / "model.ort").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "model.ort").write_bytes(content)

    assert "files: model.ort is not as it was written" in refused(whole, turn)

    def scale(folder: Path) -> None:
        """Put a file there that runs, of other weights, and let the manifest vouch for it."""
        import onnxruntime
        from onnx import load, numpy_helper, save

        model = load(other / "model.onnx")
        weight = next(each for each in model.graph.initializer if each.name.endswith("classifier.weight"))
        weight.CopyFrom(numpy_helper.from_array(4 * numpy_helper.to_array(weight), weight.name))
        save(model, tmp_path / "other.onnx")
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(folder / "model.ort")
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(tmp_path / "other.onnx"), options, providers=["CPUExecutionProvider"])
        values = read_json(folder / "config.json")
        values["companions"]["model.ort"] = (folder / "model.ort").stat().st_size
        values["sha256"]["model.ort"] = digest(folder / "model.ort")
        write_json(folder / "config.json", values)

    said = refused(whole, scale)
    assert "fails: model.ort: " in said
    assert "of the largest output, where 10.00% is allowed" in said
    assert "files: " not in said
    for damage, message in (
        (lambda file: file.unlink(), "model.ort is missing; export the checkpoint again"),
        (lambda file: file.write_bytes(b"no"), "model.ort: not a model that onnxruntime reads"),
    ):
        folder = tmp_path / message.split()[-1]
        shutil.copytree(whole, folder)
        damage(folder / "model.ort")
        assert main(["export", "verify", str(folder)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_swapped_labels_are_refused(export_once: ExportOnce, refuse_swapped_labels: Callable[[Path], str]) -> None:
    refuse_swapped_labels(export_once("onnx", "int8"))
