from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from squeezebert import artifact
from squeezebert.cli import main
from squeezebert.errors import InputError
from squeezebert.export import build, graph
from squeezebert.export.quantize import quantize_rows
from squeezebert.runtime.engines.exported import ExportedEngine
from squeezebert.runtime.engines.litert import LiteRtSession

for _package in ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"):
    pytest.importorskip(_package)

pytestmark = pytest.mark.slow  # its converter takes half a minute for the smallest of models

Refused = Callable[[Path, Callable[[Path], None]], str]
LENGTH = 64


def embedding_of(checkpoint: Path, kind: str) -> NDArray[np.float32]:
    """An embedding's weight."""
    weights = load_file(checkpoint / "model.safetensors")
    (rows,) = (each for name, each in weights.items() if name.endswith(f"{kind}_embeddings.weight"))
    return rows


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
    assert (manifest.format, manifest.precision, manifest.form) == ("litert", "fp32", "bmm")
    assert set(manifest.files) == {"model.tflite"}
    assert manifest.lengths == (32, LENGTH)
    report = manifest.report
    assert report is not None
    assert report["failed"] == []
    assert report["relative_difference"] <= artifact.TOLERANCES["fp32"]
    assert report["rows"] >= 13 + 24  # the spread of lengths, of which 128 and 512 become 64; and the sentences


def test_lengths_share_their_weights(fp32: Path, source: Path) -> None:
    assert (fp32 / "model.tflite").read_bytes().count(embedding_of(source, "word").tobytes()) == 1


def test_int8_is_small_and_close(int8: Path, source: Path) -> None:
    report = artifact.read_manifest(int8).report
    assert report is not None
    assert [line for line in report["failed"] if not line.startswith("latency: ")] == []
    assert report["bytes"] < report["fp32_bytes"]
    stored = (int8 / "model.tflite").read_bytes()
    assert quantize_rows(embedding_of(source, "word")).values.tobytes() in stored
    positions = embedding_of(source, "position")
    assert stored.count(quantize_rows(positions[:LENGTH]).values.tobytes()) == 1  # for both lengths
    assert positions[:32].tobytes() not in stored


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("head", [head for head in artifact.OUTPUTS if head != "sequence_classification"])
def test_every_head(check_head: Callable[..., artifact.Manifest], head: str, precision: str) -> None:
    check_head("litert", precision, head, max_length=32)  # one graph, for the converter takes its time


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_length_that_it_ships_with(
    source: Path, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of 1 to 512 tokens, in batches of 1, 3 and 8, each row in the next length that there is, equal PyTorch."""
    loaded = graph.load(source, None, build.converter("litert").HEADS)
    manifest = build.write("litert", loaded, tmp_path, precision)
    assert manifest.lengths == (32, 128, 512)
    golden = build.record(loaded)
    assert {(len(each.ids), each.ids.shape[1]) for each in golden.probes} >= {
        (1, 1), (1, 2), (1, 31), (1, 128), (1, 512), (3, 31), (8, 128),
    }  # fmt: skip
    assert build.examine(tmp_path, manifest, golden).failed == ()
    engine = ExportedEngine.load(tmp_path)
    took: list[int] = []
    run_row = LiteRtSession._run_row

    def spy(self: LiteRtSession, ids: Any, mask: Any, types: Any) -> Any:
        took.append(ids.shape[1])
        return run_row(self, ids, mask, types)

    monkeypatch.setattr(LiteRtSession, "_run_row", spy)
    for tokens, length in ((1, 32), (2, 32), (31, 32), (32, 32), (33, 128), (128, 128), (129, 512), (512, 512)):
        ids = np.ones((1, tokens), np.int64)
        engine.outputs(ids, ids, 0 * ids)
        assert took.pop() == length


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


def test_a_wrong_scale_is_refused(int8: Path, source: Path, refused: Refused) -> None:
    def damage(folder: Path) -> None:
        stored, words = (folder / "model.tflite").read_bytes(), quantize_rows(embedding_of(source, "word")).values
        assert stored.count(words.tobytes()) == 1
        # The scales as they are, to these values are what scales four times too small were to the right ones.
        (folder / "model.tflite").write_bytes(stored.replace(words.tobytes(), (words // 4).tobytes()))

    assert "fails: difference: " in refused(int8, damage)


def test_swapped_labels_are_refused(int8: Path, refuse_swapped_labels: Callable[[Path], str]) -> None:
    refuse_swapped_labels(int8)
