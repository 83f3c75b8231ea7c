from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from squeezebert import artifact
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.runtime.engines.exported import ExportedEngine

for _package in ("openvino", "nncf"):
    pytest.importorskip(_package)

ExportOnce = Callable[..., Path]


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
    report = manifest.report
    assert report is not None
    # A model this small need not be faster.
    assert [line for line in report["failed"] if not line.startswith("latency: ")] == []
    assert report["bytes"] < report["fp32_bytes"]


@pytest.mark.parametrize("head", [head for head in artifact.OUTPUTS if head != "sequence_classification"])
def test_every_head(export_once: ExportOnce, head: str) -> None:
    report = artifact.read_manifest(export_once("openvino", "fp32", head)).report
    assert report is not None
    assert report["failed"] == []


def test_classify_runs_it(export_once: ExportOnce, classifier_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["a great film", "dull", "it is not so very good but who was long"]
    assert main(["classify", "--model", str(export_once("openvino", "fp32")), *texts]) == 0
    got = capsys.readouterr().out
    assert main(["classify", "--model", str(classifier_folder), "--engine", "torch", *texts]) == 0
    assert capsys.readouterr().out == got


def test_a_damaged_file_is_one_line(export_once: ExportOnce, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(export_once("openvino", "fp32"), tmp_path / "a")
    (tmp_path / "a" / "model.xml").write_text("<net")
    with pytest.raises(InputError, match="not a model that openvino reads"):
        ExportedEngine.load(tmp_path / "a")
