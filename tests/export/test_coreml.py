from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from squeezebert import artifact, checkpoint
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.export import build
from squeezebert.files import read_json, write_json
from squeezebert.runtime.engines.exported import ExportedEngine

pytest.importorskip("coremltools")

ExportOnce = Callable[..., Path]


@pytest.fixture(scope="module")
def package(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coreml") / "artifact"
    build.export("coreml", source, folder, max_length=64)
    return folder


def test_is_half_of_fp32_and_says_that_it_was_not_executed(package: Path) -> None:
    manifest = artifact.read_manifest(package)
    assert (manifest.format, manifest.precision, manifest.form) == ("coreml", "fp16", "split")
    assert set(manifest.files) == {"model.mlpackage"}
    report = manifest.report
    assert report is not None
    assert report["executed"] is False
    assert report["failed"] == []
    assert report["largest_difference"] is None
    assert report["bytes"] == manifest.files["model.mlpackage"] < report["fp32_bytes"]


def test_the_program_takes_any_batch_and_length(package: Path) -> None:
    import coremltools

    description = (
        coremltools.models.MLModel(str(package / "model.mlpackage"), skip_model_load=True).get_spec().description
    )
    assert [each.name for each in description.input] == ["input_ids", "attention_mask", "token_type_ids"]
    for each in description.input:
        ranges = each.type.multiArrayType.shapeRange.sizeRanges
        assert [(one.lowerBound, one.upperBound) for one in ranges] == [(1, 64), (1, 64)]
    assert [each.name for each in description.output] == ["logits"]
    assert description.metadata.userDefined["labels"].split("\n") == ["negative", "positive"]


@pytest.mark.slow
@pytest.mark.parametrize("head", [head for head in artifact.OUTPUTS if head != "sequence_classification"])
def test_every_head(export_once: ExportOnce, head: str) -> None:
    report = artifact.read_manifest(export_once("coreml", "fp32", head)).report
    assert report is not None
    assert report["failed"] == []


def test_other_weights_are_refused(
    package: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "verify", str(package), "--checkpoint", str(source)]) == 0
    loaded = checkpoint.load(source)
    with torch.no_grad():
        loaded.model.classifier.weight *= 1.01
    checkpoint.save(loaded.model, tmp_path / "other", tokenizer=loaded.tokenizer)
    capsys.readouterr()
    assert main(["export", "verify", str(package), "--checkpoint", str(tmp_path / "other")]) == 3
    assert "fails: weights: model.classifier.weight not as in the checkpoint" in capsys.readouterr().err


def test_swapped_labels_are_refused(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(package, tmp_path / "a")
    values = read_json(tmp_path / "a" / "config.json")
    write_json(tmp_path / "a" / "config.json", {**values, "labels": values["labels"][::-1]})
    assert main(["export", "verify", str(tmp_path / "a")]) == 3
    error = capsys.readouterr().err
    assert "labels: positive, negative, where the checkpoint has negative, positive" in error
    assert "labels: negative, positive in the package, positive, negative in the manifest" in error


def test_what_cannot_be_done_is_one_line(
    package: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="nothing here runs coreml"):
        ExportedEngine.load(package)
    table = tmp_path / "dev.csv"
    table.write_text("text,label\na great film,positive\n")
    assert main(["export", "verify", str(package), "--checkpoint", str(source), "--dev", str(table)]) == 2
    assert "nothing here runs coreml, so it cannot be scored; leave out --dev" in capsys.readouterr().err
    shutil.copytree(package, tmp_path / "a")
    (model,) = (tmp_path / "a" / "model.mlpackage").rglob("*.mlmodel")
    model.write_bytes(b"no")
    assert main(["export", "verify", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert "not a package that coremltools reads" in error
    assert error.count("\n") == 1
