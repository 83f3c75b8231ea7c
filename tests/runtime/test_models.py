"""The models inside the package do what their cards say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from squeezebert import Classifier, artifact
from squeezebert.cli import main
from squeezebert.data.tasks import get_task, load_split
from squeezebert.errors import InputError
from squeezebert.evaluation.metrics import score
from squeezebert.files import read_json, write_json
from squeezebert.folder import is_size, read_config, size_config
from squeezebert.runtime import models
from squeezebert.runtime.predictor import Predictor

FOLDER = Path(models.__file__).parent


def test_every_model_has_a_card_and_all_are_small() -> None:
    assert models.DEFAULT in models.shipped()
    for name in models.shipped():
        assert (FOLDER / name / "README.md").is_file()
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 45e6


def test_classify_needs_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "a gripping, beautifully shot film", "a dull and lifeless mess"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["positive", "negative"]


def test_names_are_for_models_and_folders_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models.find("small-sst2") == FOLDER / "small-sst2"
    assert models.find("owner/name") == "owner/name"
    assert models.find(tmp_path) == tmp_path
    (tmp_path / "small-sst2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert models.find("small-sst2") == "small-sst2"
    monkeypatch.undo()
    assert Classifier.load("small-sst2").labels == ("negative", "positive")


def test_a_model_of_the_package_is_a_checkpoint_too() -> None:
    pytest.importorskip("torch")
    from squeezebert import checkpoint

    loaded = checkpoint.load("small-sst2")
    assert loaded.config.labels == ("negative", "positive")
    assert loaded.tokenizer is not None
    assert loaded.report.missing == loaded.report.unexpected == ()
    ours = loaded.model.state_dict()
    with safe_open(FOLDER / "small-sst2" / "model.safetensors", "np") as file:
        for layer in ("embeddings.word", "layers.3.attention.query"):
            values, scale = (file.get_tensor(f"{layer}.{part}") for part in ("weight", "scale"))
            expected = values.astype(np.float64) * scale[:, None]
            np.testing.assert_allclose(ours[f"transformer.{layer}.weight"].numpy(), expected, rtol=2**-23)
        np.testing.assert_array_equal(ours["classifier.bias"].numpy(), file.get_tensor("classifier.bias"))
    # With other labels, only the classifier is new.
    again = checkpoint.load("small-sst2", num_labels=3)
    assert {name.partition(".")[0] for name in again.report.reinitialised} == {"classifier"}


def test_a_size_name_without_a_model_is_random() -> None:
    assert is_size("base")
    assert is_size("random:base")
    assert is_size("random:small")
    assert not is_size("small")
    assert not is_size("random:small-sst2")
    assert not is_size("small-sst2")
    assert size_config("random:tiny") == size_config("tiny")


def test_only_the_native_format_can_be_trained_further(tmp_path: Path) -> None:
    values = read_json(FOLDER / "small-sst2" / "config.json")
    write_json(tmp_path / "config.json", {**values, "format": "squeezebert-onnx"})
    with pytest.raises(InputError, match="exported as onnx; give the checkpoint"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", models.shipped())
def test_a_model_of_the_package_is_exported_bit_by_bit_without_torch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["export", "native", name, str(tmp_path / "out")]) == 0
    wanted, found = (load_file(folder / artifact.WEIGHTS) for folder in (FOLDER / name, tmp_path / "out"))
    assert found.keys() == wanted.keys()
    for tensor, values in wanted.items():
        np.testing.assert_array_equal(found[tensor], values)


def test_small_is_an_encoder_to_start_from() -> None:
    pytest.importorskip("torch")
    from squeezebert import checkpoint
    from squeezebert.training.grouping import order_of_checkpoint

    loaded = checkpoint.load("small", num_labels=2)
    assert not loaded.report.random
    assert set(loaded.report.missing) == {"classifier.weight", "classifier.bias"}
    assert loaded.config.hidden_size == size_config("random:small").hidden_size
    order = order_of_checkpoint("small")
    assert order is not None
    assert np.bincount(order.channels).tolist() == [loaded.config.hidden_size // 4] * 4


def test_small_sst2_scores_what_its_card_says(shared_data: Path) -> None:
    card = (FOLDER / "small-sst2" / "README.md").read_text(encoding="utf-8")
    [figure] = re.findall(r"int8 \(this folder\) \| (\d+\.\d+) %", card)
    task = get_task("sst2")
    rows = load_split(task, "validation", shared_data / "glue")
    logits = list(Predictor.load("small-sst2").logits((row.text, None) for row in rows))
    accuracy = score(task, np.stack(logits), [row.label for row in rows])["accuracy"]
    # One row of 872 on the border of two labels may fall to either side on another processor.
    assert 100 * accuracy == pytest.approx(float(figure), abs=0.12)
