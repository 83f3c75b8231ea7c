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
from squeezebert.export.quantize import QuantizedRows, quantize_rows
from squeezebert.runtime.engines.exported import ExportedEngine

for _package in ("executorch", "torchao"):
    pytest.importorskip(_package)

pytestmark = pytest.mark.slow  # its converter takes half a minute for the smallest of models

Refused = Callable[[Path, Callable[[Path], None]], str]


def weights_of(checkpoint: Path) -> dict[str, NDArray[np.float32]]:
    return load_file(checkpoint / "model.safetensors")


def word_rows(checkpoint: Path) -> QuantizedRows:
    (words,) = (each for name, each in weights_of(checkpoint).items() if name.endswith("word_embeddings.weight"))
    return quantize_rows(words)


@pytest.fixture(scope="module")
def source(save_classifier: Callable[..., Path]) -> Path:
    # Two groups, because in int8 each product is lowered by itself, which takes a second or two.
    groups = dict.fromkeys(("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups"), 2)
    return save_classifier(num_hidden_layers=1, **groups)


@pytest.fixture(scope="module")
def fp32(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("executorch") / "fp32"
    build.export("executorch", source, folder, precision="fp32")
    return folder


@pytest.fixture(scope="module")
def int8(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("executorch") / "int8"
    build.export("executorch", source, folder, force=True)  # a model this small need not be faster
    return folder


def test_equals_pytorch_over_lengths_and_batches(fp32: Path) -> None:
    manifest = artifact.read_manifest(fp32)
    assert (manifest.format, manifest.precision, manifest.form) == ("executorch", "fp32", "split")
    assert set(manifest.files) == {"model.pte"}
    assert manifest.lengths == ()
    report = manifest.report
    assert report is not None
    assert report["failed"] == []
    assert report["relative_difference"] <= artifact.TOLERANCES["fp32"]
    assert report["rows"] >= 15 + 24  # the spread of lengths, and the sentences


def test_int8_is_small_and_close(int8: Path, source: Path) -> None:
    manifest = artifact.read_manifest(int8)
    assert (manifest.precision, manifest.form) == ("int8", "split")
    report = manifest.report
    assert report is not None
    assert [line for line in report["failed"] if not line.startswith("latency: ")] == []
    assert report["bytes"] < report["fp32_bytes"]
    stored = (int8 / "model.pte").read_bytes()
    assert word_rows(source).values.tobytes() in stored
    # Of a model this small the graph is a good part, too; in fp32 the weights alone would be more.
    assert len(stored) < 4 * sum(each.size for each in weights_of(source).values())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("head", [head for head in artifact.OUTPUTS if head != "sequence_classification"])
def test_every_head(check_head: Callable[..., artifact.Manifest], head: str, precision: str) -> None:
    check_head("executorch", precision, head)


def test_classify_runs_it(fp32: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["a great film", "dull", "it is not so very good but who was long"]
    assert main(["classify", "--model", str(fp32), *texts]) == 0
    got = capsys.readouterr().out
    assert main(["classify", "--model", str(source), "--engine", "torch", *texts]) == 0
    assert capsys.readouterr().out == got


def test_a_second_model_leaves_the_first_as_it_was(fp32: Path) -> None:
    ids = np.arange(7)[None]
    first = ExportedEngine.load(fp32, threads=1)
    want = first.outputs(ids, np.ones_like(ids), np.zeros_like(ids))["logits"]
    ExportedEngine.load(fp32, threads=2).outputs(ids[:, :3], np.ones((1, 3), int), np.zeros((1, 3), int))
    np.testing.assert_array_equal(first.outputs(ids, np.ones_like(ids), np.zeros_like(ids))["logits"], want)


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"no" + whole[2:100]])
def test_a_damaged_file_is_one_line(fp32: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    shutil.copytree(fp32, tmp_path / "a")
    model = tmp_path / "a" / "model.pte"
    model.write_bytes(damage(model.read_bytes()))
    with pytest.raises(InputError, match="not a program that executorch reads") as caught:
        ExportedEngine.load(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_a_wrong_scale_is_refused(int8: Path, source: Path, refused: Refused) -> None:
    def damage(folder: Path) -> None:
        stored, scale = (folder / "model.pte").read_bytes(), word_rows(source).scale
        assert stored.count(scale.tobytes()) == 1
        (folder / "model.pte").write_bytes(stored.replace(scale.tobytes(), (4 * scale).tobytes()))

    assert "fails: difference: " in refused(int8, damage)


def test_swapped_labels_are_refused(int8: Path, refuse_swapped_labels: Callable[[Path], str]) -> None:
    refuse_swapped_labels(int8)
