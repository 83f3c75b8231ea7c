from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeezebert import artifact
from squeezebert.cli import main
from squeezebert.data.collate import collate
from squeezebert.errors import InputError, MissingExtraError
from squeezebert.files import write_json
from squeezebert.runtime.engines import exported
from squeezebert.tokenizer import Tokenizer


def test_rows_run_one_by_one_come_back_in_place() -> None:
    seen = []

    def run_row(ids: Any, mask: Any, types: Any) -> list[Any]:
        seen.append(ids.shape)
        assert mask.sum() in (1, 3)
        return [ids.astype(np.float32)[:, :, None], ids.sum(axis=1, keepdims=True).astype(np.float32)]

    ids = np.array([[5, 6, 7], [8, 0, 0]])
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    tokens, rows = exported.run_rows(run_row, ids, mask, ids, lengths=(2, 4))
    assert seen == [(1, 4), (1, 2)]
    np.testing.assert_array_equal(tokens[:, :, 0], ids)
    np.testing.assert_array_equal(rows, [[18], [8]])


class Ones:
    """A session whose logits are all 1."""

    ragged = True

    def __init__(self, outputs: int) -> None:
        self.width = outputs

    def run(self, ids: Any, mask: Any, types: Any) -> list[Any]:
        return [np.ones((len(ids), self.width), np.float32)]


def write_manifest(folder: Path, format: str = "onnx") -> artifact.Manifest:
    """An artifact's folder without a model."""
    manifest = artifact.Manifest(
        format=format, head="sequence_classification", labels=("bad", "good"), problem_type=None,
        max_position_embeddings=512, max_length=None, pair=None, lengths=(32,),
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    write_json(folder / artifact.CONFIG, manifest.to_dict())
    return manifest


TOKENIZER = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film"])


def test_outputs_are_held_against_the_labels(tmp_path: Path) -> None:
    batch = collate(TOKENIZER.encode_batch(["a film"]), indices=[0])
    for outputs in (1, 3):
        engine = exported.ExportedEngine(tmp_path, write_manifest(tmp_path), Ones(outputs))
        with pytest.raises(InputError, match=rf"the model has {outputs} outputs, but config\.json names 2 labels"):
            engine.run(batch)
    assert exported.ExportedEngine(tmp_path, write_manifest(tmp_path), Ones(2)).run(batch).shape == (1, 2)


def test_save_takes_the_place_of_an_artifact_only(tmp_path: Path) -> None:
    source, mine = tmp_path / "source", tmp_path / "mine"
    engine = exported.ExportedEngine(source, write_manifest(source), Ones(2))
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds other files"):
        engine.save(mine, TOKENIZER)
    assert (mine / "letter.txt").read_text() == "dear"
    for _ in range(2):
        engine.save(tmp_path / "copy", TOKENIZER)
        assert artifact.read_manifest(tmp_path / "copy").labels == ("bad", "good")


@pytest.mark.parametrize(
    ("format", "module"),
    [
        ("onnx", "onnxruntime"),
        ("openvino", "openvino"),
        ("executorch", "executorch.runtime"),
        ("litert", "ai_edge_litert.interpreter"),
    ],
)
def test_a_missing_runtime_names_its_extra(
    format: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert format in exported.SESSIONS
    write_manifest(tmp_path, format)
    monkeypatch.setitem(sys.modules, module, None)  # what import makes of it is ModuleNotFoundError
    with pytest.raises(MissingExtraError, match=rf"pip install 'squeezebert\[{format}\]'"):
        exported.ExportedEngine.load(tmp_path)
    assert main(["classify", "--model", str(tmp_path), "a text"]) == 2
    error = capsys.readouterr().err
    package = module.split(".")[0]
    assert f"{package} is not installed; this needs it: pip install 'squeezebert[{format}]'" in error
    assert error.count("\n") == 1
