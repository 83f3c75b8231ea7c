from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeezebert import artifact
from squeezebert.cli import main
from squeezebert.errors import MissingExtraError
from squeezebert.files import write_json
from squeezebert.runtime.engines import exported


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
    manifest = artifact.Manifest(
        format=format,
        head="sequence_classification",
        labels=("bad", "good"),
        problem_type=None,
        max_position_embeddings=512,
        max_length=None,
        pair=None,
        lengths=(32,),
    )
    write_json(tmp_path / artifact.CONFIG, manifest.to_dict())
    monkeypatch.setitem(sys.modules, module, None)  # what import makes of it is ModuleNotFoundError
    with pytest.raises(MissingExtraError, match=rf"pip install 'squeezebert\[{format}\]'"):
        exported.ExportedEngine.load(tmp_path)
    assert main(["classify", "--model", str(tmp_path), "a text"]) == 2
    error = capsys.readouterr().err
    package = module.split(".")[0]
    assert f"{package} is not installed; this needs it: pip install 'squeezebert[{format}]'" in error
    assert error.count("\n") == 1
