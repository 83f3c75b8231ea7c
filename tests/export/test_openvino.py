from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from squeezebert import artifact
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.export.quantize import quantize_rows
from squeezebert.runtime.engines.exported import ExportedEngine

for _package in ("openvino", "nncf"):
    pytest.importorskip(_package)

ExportOnce = Callable[..., Path]
Refused = Callable[[Path, Callable[[Path], None]], str]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_equals_pytorch_over_lengths_and_batches(export_once: ExportOnce, precision: str) -> None:
    manifest = artifact.read_manifest(export_once("openvino", precision))
    assert (manifest.format, manifest.precision, manifest.form) == ("openvino", precision, "split")
    assert set(manifest.files) == {"model.xml", "model.bin"}
    report = manifest.report
    assert report is not None
    assert report["failed"] == []
    if precision == "fp16":
        assert report["bytes"] < report["fp32_bytes"]  # of a tiny model the graph itself is a good part


def test_int8_is_small_and_close(export_once: ExportOnce) -> None:
    manifest = artifact.read_manifest(export_once("openvino", "int8"))
    assert manifest.form == "conv"
    report = manifest.report
    assert report is not None
    # A model this small need not be faster.
    assert [line for line in report["failed"] if not line.startswith("latency: ")] == []
    assert report["bytes"] < report["fp32_bytes"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("head", [head for head in artifact.OUTPUTS if head != "sequence_classification"])
def test_every_head(check_head: Callable[..., artifact.Manifest], head: str, precision: str) -> None:
    check_head("openvino", precision, head)


def test_classify_runs_it(export_once: ExportOnce, classifier_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["a great film", "dull", "it is not so very good but who was long"]
    assert main(["classify", "--model", str(export_once("openvino", "fp32")), *texts]) == 0
    got = capsys.readouterr().out
    assert main(["classify", "--model", str(classifier_folder), "--engine", "torch", *texts]) == 0
    assert capsys.readouterr().out == got


def test_a_damaged_file_is_one_line(export_once: ExportOnce, tmp_path: Path) -> None:
    shutil.copytree(export_once("openvino", "fp32"), tmp_path / "a")
    (tmp_path / "a" / "model.xml").write_text("<net")
    with pytest.raises(InputError, match="not a model that openvino reads"):
        ExportedEngine.load(tmp_path / "a")


def test_a_wrong_scale_is_refused(export_once: ExportOnce, classifier_folder: Path, refused: Refused) -> None:
    weights = load_file(classifier_folder / "model.safetensors")
    (words,) = (each for name, each in weights.items() if name.endswith("word_embeddings.weight"))
    rows = quantize_rows(words).values

    def damage(folder: Path) -> None:
        stored = (folder / "model.bin").read_bytes()
        assert stored.count(rows.tobytes()) == 1
        # The scales as they are, to these values are what scales four times too small were to the right ones.
        (folder / "model.bin").write_bytes(stored.replace(rows.tobytes(), (rows // 4).tobytes()))

    said = refused(export_once("openvino", "int8"), damage)
    assert "fails: difference: " in said
    assert "files: model.bin is not as it was written" in said


def test_a_changed_bit_is_refused(export_once: ExportOnce, refused: Refused) -> None:
    """One that no output shows: the last of a weight's 24."""

    def damage(folder: Path) -> None:
        content = bytearray((folder / "model.bin").read_bytes())
        content[len(content) // 8 * 4] ^= 1
        (folder / "model.bin").write_bytes(content)

    assert "fails: files: model.bin is not as it was written" in refused(export_once("openvino", "fp32"), damage)


def test_swapped_labels_are_refused(export_once: ExportOnce, refuse_swapped_labels: Callable[[Path], str]) -> None:
    refuse_swapped_labels(export_once("openvino", "fp32"))
