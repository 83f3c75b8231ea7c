"""The frame of all formats, over a toy format that keeps the checkpoint and runs it through torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from squeezebert import artifact, checkpoint
from squeezebert.cli import export as command
from squeezebert.cli import main
from squeezebert.export import build, verify
from squeezebert.export.build import Written
from squeezebert.files import write_json
from squeezebert.runtime.engines import exported


class ToySession:
    ragged = False

    def __init__(self, folder: Path, manifest: artifact.Manifest) -> None:
        from squeezebert.export.graph import _Traced

        self.model = _Traced(checkpoint.load(folder / "model", manifest.head).model, manifest.head)

    @torch.inference_mode()
    def run(self, *inputs: Any) -> list[Any]:
        return [each.numpy() for each in self.model(*map(torch.from_numpy, inputs))]


def convert(graph: Any, folder: Path, precision: str, form: str | None = None) -> Written:
    checkpoint.save(graph.loaded.model, folder / "model")
    if precision == "fp32":
        (folder / "model" / "ballast").write_bytes(bytes(1000))
    return Written(form="conv", files=("model",))


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    converter: Any = ModuleType("squeezebert.export.toy")
    converter.PACKAGES, converter.PRECISIONS, converter.convert = ("numpy",), ("fp32", "int8"), convert
    converter.HEADS = ("sequence_classification", "token_classification")
    engine: Any = ModuleType("squeezebert.runtime.engines.toy")
    engine.load = lambda folder, manifest, threads: ToySession(folder, manifest)
    monkeypatch.setitem(sys.modules, converter.__name__, converter)
    monkeypatch.setitem(sys.modules, engine.__name__, engine)
    monkeypatch.setattr(exported, "SESSIONS", ("toy",))
    monkeypatch.setattr(build, "FORMATS", ("toy",))
    monkeypatch.setitem(command.CONVERTED, "toy", (("fp32", "int8"), "a toy"))
    # Times are those of a machine on which int8 is twice as fast.
    monkeypatch.setattr(verify, "clock", lambda runs, *_: [{"1x32": 1.0}, {"1x32": 2.0}][: len(runs)])


def scale_classifier(folder: Path, factor: float) -> None:
    loaded = checkpoint.load(folder)
    with torch.no_grad():
        loaded.model.classifier.weight *= factor
    checkpoint.save(loaded.model, folder)


def test_int8_is_measured_beside_fp32_and_runs_in_classify(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "artifact"
    assert main(["export", "toy", str(classifier_folder), str(out), "--max-length", "64"]) == 0
    printed = capsys.readouterr().out
    assert "agreement   100.00% of the labels" in printed
    assert "latency     1x32: 1.0 ms, fp32 2.0 ms" in printed
    manifest = artifact.read_manifest(out)
    assert (manifest.format, manifest.precision, manifest.form) == ("toy", "int8", "conv")
    assert manifest.labels == ("negative", "positive")
    assert manifest.max_position_embeddings == 64
    assert manifest.versions["torch"] == version("torch")
    assert manifest.report is not None
    assert manifest.report["bytes"] == sum(manifest.files.values()) == manifest.report["fp32_bytes"] - 1000
    assert manifest.report["relative_difference"] < manifest.tolerance
    assert manifest.report["failed"] == []
    assert main(["export", "verify", str(out)]) == 0
    assert main(["export", "verify", str(out), "--checkpoint", str(classifier_folder)]) == 0
    assert main(["classify", "--model", str(out), "a great film"]) == 0
    got = capsys.readouterr().out.splitlines()[-1]
    assert main(["classify", "--model", str(classifier_folder), "--engine", "torch", "a great film"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == got


def test_a_failed_check_leaves_nothing_unless_forced(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        verify, "clock", lambda runs, *_: [{"1x32": 3.0, "8x32": 9.0}, {"1x32": 2.0, "8x32": 9.0}][: len(runs)]
    )
    arguments = ["export", "toy", str(classifier_folder), str(tmp_path / "artifact")]
    assert main(arguments) == 3
    assert (
        "not written: latency: not faster than fp32 here (1x32 takes 3.0 ms, fp32 2.0; 8x32 takes"
        in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--force"]) == 0
    report = artifact.read_manifest(tmp_path / "artifact").report
    assert report is not None
    assert report["failed"][0].startswith("latency: ")
    assert main([*arguments, "--precision", "fp32"]) == 0  # fp32 has nothing to be faster than


def test_a_wrong_scale_is_refused(classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "artifact"
    build.export("toy", classifier_folder, out)
    scale_classifier(out / "model", 1.5)
    for more in ([], ["--checkpoint", str(classifier_folder)]):
        assert main(["export", "verify", str(out), *more]) == 3
        assert "fails: difference: " in capsys.readouterr().err


def test_swapped_labels_are_refused(
    classifier_folder: Path, tmp_path: Path, refuse_swapped_labels: Callable[[Path], str]
) -> None:
    build.export("toy", classifier_folder, tmp_path / "artifact")
    refuse_swapped_labels(tmp_path / "artifact")


def test_accuracy_on_labelled_data(classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = tmp_path / "dev.csv", tmp_path / "artifact"
    table.write_text("text,label\na great film,positive\na dull plot,negative\n")
    flags = ["--dev", str(table), "--max-accuracy-drop", "0"]
    assert main(["export", "toy", str(classifier_folder), str(out), *flags]) == 0
    report = artifact.read_manifest(out).report
    assert report is not None
    assert report["accuracy"]["rows"] == 2
    assert report["accuracy"]["artifact"] == report["accuracy"]["checkpoint"]
    # The artifact now answers the reverse, so it loses exactly what the checkpoint had beyond it.
    scale_classifier(out / "model", -1.0)
    assert main(["export", "verify", str(out), "--checkpoint", str(classifier_folder), *flags]) == 3
    capsys.readouterr()
    assert main(["export", "verify", str(out), *flags]) == 2
    assert "--dev compares with the checkpoint" in capsys.readouterr().err


def test_what_is_asked_for_wrongly_is_one_line(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = checkpoint.load("tiny", "question_answering")
    checkpoint.save(loaded.model, tmp_path / "qa")
    source, out = str(classifier_folder), str(tmp_path / "out")
    for arguments, message in (
        (["export", "toy", str(tmp_path / "qa"), out], "has the head question_answering; this format carries "),
        (["export", "toy", "tiny", out], "a size name stands for random weights"),
        (["export", "toy", source, out, "--max-length", "513"], "max length must lie between 5 and the model's 512"),
        (["export", "toy", source, source], "holds other files"),
        (["export", "toy", source, out, "--text-column", "t"], "--text-column goes with --dev"),
        (["export", "toy", source, out, "--dev", "no.csv"], "no.csv: no such file"),
        (["export", "verify", source], "not an exported model"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not Path(out).exists()


def test_a_missing_file_or_runtime_is_named(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "artifact"
    build.export("toy", classifier_folder, out)
    manifest = artifact.read_manifest(out)
    write_json(out / "config.json", replace(manifest, files={**manifest.files, "more.bin": 1}).to_dict())
    assert main(["export", "verify", str(out)]) == 2
    assert "more.bin is missing" in capsys.readouterr().err
    monkeypatch.setattr(sys.modules["squeezebert.export.toy"], "PACKAGES", ("nosuchruntime",))
    assert main(["export", "toy", str(classifier_folder), str(tmp_path / "b")]) == 2
    assert "pip install 'squeezebert[toy]'" in capsys.readouterr().err
