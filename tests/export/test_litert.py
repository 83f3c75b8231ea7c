from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from squeezebert import artifact
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.export import build
from squeezebert.export.quantize import quantize_rows
from squeezebert.runtime.engines.exported import ExportedEngine

for _package in ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"):
    pytest.importorskip(_package)

pytestmark = pytest.mark.slow  # its converter takes half a minute for the smallest of models

ExportOnce = Callable[..., Path]
LENGTH = 64


def words_of(checkpoint: Path) -> NDArray[np.float32]:
    """The word embedding's weight."""
    weights = load_file(checkpoint / "model.safetensors")
    (words,) = (each for name, each in weights.items() if name.endswith("word_embeddings.weight"))
    return words


@pytest.fixture(scope="module")
def fp32(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("litert") / "fp32"
    build.export("litert", source, folder, precision="fp32", max_length=LENGTH)
    return folder


@pytest.fixture(scope="module")
def int8(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("litert") / "int8"
    build.export("litert", source, folder, max_length=LENGTH, force=True)  # a model this small need not be faster
    return folder


def test_equals_pytorch_over_lengths_and_batches(fp32: Path) -> None:
    manifest = artifact.read_manifest(fp32)
    assert (manifest.format, manifest.precision, manifest.form) == ("litert", "fp32", "split")
    assert set(manifest.files) == {"model.tflite"}
    assert manifest.lengths == (32, LENGTH)
    report = manifest.report
    assert report is not None
    assert report["failed"] == []
    assert report["relative_difference"] <= artifact.TOLERANCES["fp32"]
    assert report["rows"] >= 13 + 24  # the spread of lengths, of which 128 and 512 become 64; and the sentences


def test_lengths_share_their_weights(fp32: Path, source: Path) -> None:
    assert (fp32 / "model.tflite").read_bytes().count(words_of(source).tobytes()) == 1


def test_int8_is_small_and_close(int8: Path, source: Path) -> None:
    report = artifact.read_manifest(int8).report
    assert report is not None
    assert [line for line in report["failed"] if not line.startswith("latency: ")] == []
    assert report["bytes"] < report["fp32_bytes"]
    assert quantize_rows(words_of(source)).values.tobytes() in (int8 / "model.tflite").read_bytes()


@pytest.mark.parametrize("head", [head for head in artifact.OUTPUTS if head != "sequence_classification"])
def test_every_head(export_once: ExportOnce, head: str) -> None:
    report = artifact.read_manifest(export_once("litert", "fp32", head, max_length=LENGTH)).report
    assert report is not None
    assert report["failed"] == []


def test_classify_runs_it(fp32: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["a great film", "dull", "it is not so very good but who was long " * 4]
    assert main(["classify", "--model", str(fp32), *texts]) == 0
    got = capsys.readouterr().out
    assert main(["classify", "--model", str(source), "--engine", "torch", *texts]) == 0
    assert capsys.readouterr().out == got


def test_a_damaged_file_is_one_line(fp32: Path, tmp_path: Path) -> None:
    shutil.copytree(fp32, tmp_path / "a")
    (tmp_path / "a" / "model.tflite").write_bytes(b"no")
    with pytest.raises(InputError, match="not a model that litert reads") as caught:
        ExportedEngine.load(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_a_wrong_scale_is_refused(int8: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(int8, tmp_path / "a")
    model, words = tmp_path / "a" / "model.tflite", quantize_rows(words_of(source)).values
    stored = model.read_bytes()
    assert stored.count(words.tobytes()) == 1
    # The scales as they are, to these values are what scales four times too small were to the right ones.
    model.write_bytes(stored.replace(words.tobytes(), (words // 4).tobytes()))
    assert main(["export", "verify", str(tmp_path / "a")]) == 3
    assert "fails: difference: " in capsys.readouterr().err
