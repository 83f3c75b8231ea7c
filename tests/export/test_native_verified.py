"""The native export is verified like the others, where torch and the engine are installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from squeezebert import artifact, checkpoint
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.export import build, golden, graph, native
from squeezebert.runtime.engines.native import NativeEngine, library_path

Refused = Callable[[Path, Callable[[Path], None]], str]

pytestmark = pytest.mark.skipif(library_path() is None, reason="built without the native engine")


@pytest.mark.parametrize(
    "head", ["sequence_classification", "token_classification", "encoder", "masked_lm", "pretraining"]
)
def test_report_of_every_head(
    head: str, classifier_folder: Path, save_head: Callable[[str], Path], tmp_path: Path
) -> None:
    source = classifier_folder if head == "sequence_classification" else save_head(head)
    report = build.export_native(source, tmp_path / "artifact")
    assert report is not None
    assert report.executed
    assert report.failed == ()
    assert report.relative_difference is not None
    assert 0 < report.relative_difference < 0.1
    assert (report.label_agreement is None) == (not head.endswith("classification"))
    assert report.fp32_bytes is not None
    assert report.bytes < report.fp32_bytes
    manifest = artifact.read_manifest(tmp_path / "artifact")
    assert manifest.report == json.loads(json.dumps(report.to_dict()))
    # Verified again, from the golden outputs that it brings and from the checkpoint.
    again = build.verify(tmp_path / "artifact")
    assert again.relative_difference == pytest.approx(report.relative_difference, rel=1e-6)
    assert build.verify(tmp_path / "artifact", checkpoint=source).failed == ()
    # The engine reads a manifest with a report.
    assert NativeEngine.load(tmp_path / "artifact").manifest.head == manifest.head


def test_outputs_are_those_of_rows_alone(save_head: Callable[[str], Path]) -> None:
    """Padding changes nothing, and segments count."""
    for head in ("token_classification", "encoder", "masked_lm"):
        engine = NativeEngine.from_checkpoint(save_head(head))
        draw = np.random.default_rng(0)
        lengths = np.array([3, 7, 1])
        mask = (np.arange(7) < lengths[:, None]).astype(np.int64)
        ids, types = draw.integers(1, 9, mask.shape) * mask, draw.integers(0, 2, mask.shape) * mask
        together = engine.outputs(ids, mask, types)
        for row, n in enumerate(lengths):
            alone = engine.outputs(*(each[row : row + 1, :n] for each in (ids, mask, types)))
            for name, values in together.items():
                got = values[row, :n] if values.ndim == 3 else values[row]
                np.testing.assert_array_equal(got, alone[name][0])
                if values.ndim == 3:
                    assert not values[row, n:].any()
        other = engine.outputs(ids, mask, 1 - types)
        name = next(iter(together))
        assert not np.array_equal(together[name], other[name])


def test_broken_artifact_is_refused(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "artifact"
    assert main(["export", "native", str(classifier_folder), str(folder)]) == 0
    assert "of the labels of" in capsys.readouterr().out
    tensors = load_file(folder / artifact.WEIGHTS)
    scale = next(name for name in tensors if name.endswith("query.scale") or name.endswith("q.scale"))
    save_file({**tensors, scale: tensors[scale] * 50}, folder / artifact.WEIGHTS)
    assert main(["export", "verify", str(folder)]) == 3
    assert "difference: " in capsys.readouterr().err


def test_a_changed_bit_is_refused(classifier_folder: Path, tmp_path: Path, refused: Refused) -> None:
    """One that no output shows: a wrong file need not be wrong by much."""

    def damage(folder: Path) -> None:
        content = bytearray((folder / artifact.WEIGHTS).read_bytes())
        content[-4] ^= 1  # of the last fp32 number, the last bit
        (folder / artifact.WEIGHTS).write_bytes(content)

    build.export_native(classifier_folder, tmp_path / "artifact")
    said = refused(tmp_path / "artifact", damage)
    assert said.endswith("fails: files: model.safetensors is not as it was written: its hash is not the manifest's\n")


def test_swapped_labels_are_refused(
    classifier_folder: Path, tmp_path: Path, refuse_swapped_labels: Callable[[Path], str]
) -> None:
    build.export_native(classifier_folder, tmp_path / "artifact")
    refuse_swapped_labels(tmp_path / "artifact")


def test_max_length_cuts_the_positions(
    classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, short = tmp_path / "whole", tmp_path / "short"
    assert main(["export", "native", str(classifier_folder), str(whole), "--precision", "int8"]) == 0
    assert main(["export", "native", str(classifier_folder), str(short), "--max-length", "64"]) == 0
    manifest = artifact.read_manifest(short)
    assert manifest.max_position_embeddings == 64
    assert manifest.report is not None
    assert manifest.report["failed"] == []
    tensors = load_file(short / artifact.WEIGHTS)
    assert tensors["embeddings.position.weight"].shape[0] == 64
    np.testing.assert_array_equal(
        tensors["embeddings.position.weight"], load_file(whole / artifact.WEIGHTS)["embeddings.position.weight"][:64]
    )
    assert main(["export", "verify", str(short), "--checkpoint", str(classifier_folder)]) == 0
    capsys.readouterr()
    text = "a great film " * 10
    assert main(["classify", "--model", str(short), text]) == 0
    got = capsys.readouterr().out
    assert main(["classify", "--model", str(whole), text]) == 0
    assert capsys.readouterr().out == got
    assert main(["export", "native", str(classifier_folder), str(short), "--max-length", "513"]) == 2
    assert "max length must lie between 5 and the model's 512, not 513" in capsys.readouterr().err


def test_an_artifact_is_a_checkpoint_that_knows_its_length(
    save_classifier: Callable[..., Path], tmp_path: Path
) -> None:
    source = save_classifier()
    loaded = checkpoint.load(source)
    checkpoint.save(loaded.model, source, tokenizer=loaded.tokenizer, extra={"max_length": 40, "pair": False})
    native.export(source, tmp_path / "artifact")
    assert checkpoint.load(tmp_path / "artifact").extra == {"max_length": 40, "pair": False}
    native.export(tmp_path / "artifact", tmp_path / "again")
    again = artifact.read_manifest(tmp_path / "again")
    assert (again.max_length, again.pair) == (40, False)


def test_the_shipped_model_verifies_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "verify", "small-sst2"]) == 0
    assert "of the labels of 40 rows" in capsys.readouterr().out


def test_another_head_is_one_line(save_head: Callable[[str], Path], tmp_path: Path) -> None:
    build.export_native(save_head("sequence_classification"), tmp_path / "artifact")
    with pytest.raises(InputError, match=r"has the head sequence_classification, but .* has pretraining"):
        build.verify(tmp_path / "artifact", checkpoint=save_head("pretraining"))


def test_artifact_of_before_tolerances_were_stated(classifier_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    native.export(classifier_folder, folder)
    values = json.loads((folder / artifact.CONFIG).read_text())
    (folder / artifact.CONFIG).write_text(json.dumps({**values, "tolerance": None}))
    assert build.verify(folder, checkpoint=classifier_folder).failed == ()


def test_failing_export_is_not_written(
    classifier_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(artifact.TOLERANCES, "int8", 1e-6)
    words = ["export", "native", str(classifier_folder), str(tmp_path / "artifact")]
    assert main(words) == 3
    assert not (tmp_path / "artifact").exists()
    assert "not written" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
    assert "although it fails: difference" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["native", "web"])
def test_accuracy(classifier_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    table = tmp_path / "dev.csv"
    table.write_text("text,label\ngood film,positive\nbad film,negative\n")
    words = ["export", format, str(classifier_folder), str(tmp_path / "artifact"), "--dev", str(table)]
    assert main([*words, "--max-accuracy-drop", "100"]) == 0
    assert "on 2 rows" in capsys.readouterr().out
    report = artifact.read_manifest(artifact.locate(tmp_path / "artifact")).report
    assert report is not None
    assert report["accuracy"]["rows"] == 2


def test_without_torch_it_is_written_unverified(
    classifier_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else sys)
    words = ["export", "native", str(classifier_folder), str(tmp_path / "artifact")]
    assert main(words) == 0
    assert "not verified: torch, which it is compared with, is not installed" in capsys.readouterr().out
    assert artifact.read_manifest(tmp_path / "artifact").report is None
    table = tmp_path / "dev.csv"
    table.write_text("text,label\ngood,positive\n")
    assert main([*words, "--dev", str(table)]) == 2
    assert "leave out --dev" in capsys.readouterr().err


def test_random_weights_are_not_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "dev.csv"
    table.write_text("text,label\ngood,positive\n")
    words = ["export", "native", "random:tiny", str(tmp_path / "artifact")]
    assert main([*words, "--dev", str(table)]) == 2
    assert "cannot be scored here: random weights, for timing; leave out --dev" in capsys.readouterr().err
    assert main(words) == 0
    assert "not verified: random weights, for timing" in capsys.readouterr().out


def test_oracle_names_every_output(classifier_folder: Path) -> None:
    """What is compared is what PyTorch's graph gives, by its names."""
    loaded = graph.load(classifier_folder, None, tuple(artifact.OUTPUTS))
    found = build.record(loaded)
    engine = NativeEngine.from_checkpoint(classifier_folder)
    probe = found.probes[0]
    assert set(golden.kept(engine.outputs(probe.ids, probe.mask, probe.types), probe.mask)) == set(found.outputs[0])
