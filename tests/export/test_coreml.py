from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from squeezebert import artifact, checkpoint
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.export import build, coreml, graph
from squeezebert.runtime.engines.exported import ExportedEngine

pytest.importorskip("coremltools")

Refused = Callable[[Path, Callable[[Path], None]], str]


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
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("head", [head for head in artifact.OUTPUTS if head != "sequence_classification"])
def test_every_head(check_head: Callable[..., artifact.Manifest], head: str, precision: str) -> None:
    check_head("coreml", precision, head)


@pytest.mark.parametrize("kind", ["matrix", "bias of few numbers", "norm", "bias"])
def test_other_weights_are_refused(
    package: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert main(["export", "verify", str(package), "--checkpoint", str(source)]) == 0
    loaded = checkpoint.load(source)
    model = loaded.model
    changed, name = {
        "matrix": (model.classifier.weight, "model.classifier.weight"),
        "bias of few numbers": (model.classifier.bias, "model.classifier.bias"),
        "norm": (model.transformer.embeddings.norm.weight, "model.transformer.embeddings.norm.weight"),
        "bias": (model.transformer.pooler.dense.bias, "model.transformer.pooler.dense.bias"),
    }[kind]
    with torch.no_grad():
        changed[-1] += 0.01
    checkpoint.save(model, tmp_path / "other", tokenizer=loaded.tokenizer)
    capsys.readouterr()
    assert main(["export", "verify", str(package), "--checkpoint", str(tmp_path / "other")]) == 3
    assert f"fails: weights: {name} not as in the checkpoint" in capsys.readouterr().err


def test_padding_of_the_vocabulary_is_no_difference(tmp_path: Path) -> None:
    """In the program its biases are minus infinity, whatever the checkpoint has there."""
    loaded = checkpoint.load("tiny", "masked_lm", num_hidden_layers=1, real_vocab_size=2000)
    with torch.no_grad():
        loaded.model.mlm.bias.copy_(torch.linspace(-1, 1, 2048))
    checkpoint.save(loaded.model, tmp_path / "checkpoint")
    found = graph.load(tmp_path / "checkpoint", 64, coreml.HEADS)
    manifest = build.write("coreml", found, tmp_path, "fp16")
    assert coreml.inspect(tmp_path, manifest, found) == []
    with torch.no_grad():
        found.module.model.mlm.bias[1999] += 1
    assert coreml.inspect(tmp_path, manifest, found) == ["weights: model.mlm.bias not as in the checkpoint"]


def test_biases_too_small_for_fp16_are_no_difference(source: Path, tmp_path: Path) -> None:
    """A key's bias changes no attention, so training leaves it near zero, and the converter off it."""
    loaded = checkpoint.load(source)
    bias = loaded.model.transformer.layers[0].attention.key.bias
    with torch.no_grad():
        bias.copy_(torch.linspace(-1e-7, 1e-7, len(bias)))
    checkpoint.save(loaded.model, tmp_path / "checkpoint", tokenizer=loaded.tokenizer)
    assert build.export("coreml", tmp_path / "checkpoint", tmp_path / "artifact", max_length=64).failed == ()


def test_a_changed_byte_is_refused_without_the_checkpoint(package: Path, refused: Refused) -> None:
    def damage(folder: Path) -> None:
        (weights,) = folder.rglob("weight.bin")
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)

    assert "fails: files: model.mlpackage is not as it was written" in refused(package, damage)


def test_swapped_labels_are_refused(package: Path, refuse_swapped_labels: Callable[[Path], str]) -> None:
    said = refuse_swapped_labels(package)
    assert "labels: negative, positive in the package, positive, negative in the manifest" in said


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
