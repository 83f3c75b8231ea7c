"""Exported models as the source of an export: the same bit by bit, without torch, and refused when damaged."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from squeezebert import artifact
from squeezebert.cli import main
from squeezebert.export import native
from squeezebert.files import read_json, write_json
from squeezebert.model import hf

Tensors = dict[str, np.ndarray[Any, Any]]
QUERY = "layers.0.attention.query"


@pytest.mark.parametrize("head", artifact.HEADS)
def test_every_head_comes_out_as_it_went_in(
    save_head: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    native.export(save_head(head), tmp_path / "once")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["export", "native", str(tmp_path / "once"), str(tmp_path / "twice")]) == 0
    once, twice = (load_file(tmp_path / name / artifact.WEIGHTS) for name in ("once", "twice"))
    assert once.keys() == twice.keys()
    for name, values in once.items():
        np.testing.assert_array_equal(twice[name], values)
    first, second = (artifact.read_manifest(tmp_path / name) for name in ("once", "twice"))
    assert (first.head, first.labels) == (second.head, second.labels)


DAMAGES: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "no scale": (lambda t: t.pop(f"{QUERY}.scale"), rf"{QUERY}.weight, I8 \[\d+, \d+\], is not as an export writes it"),
    "short scale": (lambda t: t.update({f"{QUERY}.scale": np.ones(5, np.float32)}), f"{QUERY}.scale, F32"),
    "scale of one": (lambda t: t.update({f"{QUERY}.scale": np.ones(1, np.float32)}), f"{QUERY}.scale, F32"),
    "scale without axis": (lambda t: t.update({f"{QUERY}.scale": np.array(1, np.float32)}), f"{QUERY}.scale, F32"),
    "negative scale": (lambda t: t.update({f"{QUERY}.scale": -t[f"{QUERY}.scale"]}), "values that no export writes"),
    "endless scale": (lambda t: t[f"{QUERY}.scale"].fill(np.inf), "values that no export writes"),
    "huge scale": (lambda t: t[f"{QUERY}.scale"].fill(3e38), "not finite"),
    "unsigned": (lambda t: t.update({f"{QUERY}.weight": t[f"{QUERY}.weight"].view(np.uint8)}), f"{QUERY}.weight, U8"),
    "scale of a norm": (lambda t: t.update({"embeddings.norm.scale": np.ones(3, np.float32)}), "embeddings.norm.scale"),
    "norm in int8": (
        lambda t: t.update({"embeddings.norm.weight": np.ones(64, np.int8)}),
        "embeddings.norm.weight, I8",
    ),
    "unknown": (lambda t: t.update({"foo.weight": np.ones(3, np.float32)}), "foo.weight, F32"),
    "no dot": (lambda t: t.update({"foo": np.ones(3, np.float32)}), "foo, F32"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_tensors_are_one_line(
    classifier_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    damage, message = DAMAGES[name]
    native.export(classifier_folder, tmp_path / "once")
    tensors = load_file(tmp_path / "once" / artifact.WEIGHTS)
    damage(tensors)
    save_file(tensors, tmp_path / "once" / artifact.WEIGHTS)
    config = read_json(tmp_path / "once" / artifact.CONFIG)
    for field in ("files", "sha256"):
        del config[field]
    write_json(tmp_path / "once" / artifact.CONFIG, config)
    assert main(["export", "native", str(tmp_path / "once"), str(tmp_path / "twice")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
    assert not (tmp_path / "twice").exists()


def test_changed_failed_and_misnamed_models_are_refused(
    classifier_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    once, words = tmp_path / "once", ["export", "native", str(tmp_path / "once"), str(tmp_path / "twice")]
    native.export(classifier_folder, once)
    config = read_json(once / artifact.CONFIG)
    shutil.copyfile(once / artifact.WEIGHTS, tmp_path / "kept")
    weights = bytearray((tmp_path / "kept").read_bytes())
    weights[-1] ^= 1
    (once / artifact.WEIGHTS).write_bytes(weights)
    assert main(words) == 2
    assert "its hash is not the manifest's" in capsys.readouterr().err
    shutil.copyfile(tmp_path / "kept", once / artifact.WEIGHTS)
    write_json(once / artifact.CONFIG, config | {"report": {"failed": ["accuracy falls by 5 points"]}})
    assert main(words) == 2
    assert "failed its checks: accuracy falls by 5 points; give its checkpoint, or --force" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
    write_json(once / artifact.CONFIG, config | {"head": "encoder", "labels": []})
    assert main(words) == 2
    assert "its weights are a sequence_classification's" in capsys.readouterr().err
    (once / artifact.WEIGHTS).unlink()
    write_json(once / artifact.CONFIG, {name: config[name] for name in config if name not in ("files", "sha256")})
    assert main(words) == 2
    assert artifact.WEIGHTS in capsys.readouterr().err


def test_names_of_parameters() -> None:
    assert hf.is_ours("layers.7.feed_forward.output.weight")
    assert not hf.is_ours("encoder.layers.7.output.conv1d.weight")
    assert not hf.is_ours("weight")
