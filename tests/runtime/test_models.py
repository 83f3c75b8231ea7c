"""The models inside the package do what their cards say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from squeezebert import Classifier
from squeezebert.cli import main
from squeezebert.data.tasks import get_task, load_split
from squeezebert.evaluation.metrics import score
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


def test_small_sst2_scores_what_its_card_says(shared_data: Path) -> None:
    card = (FOLDER / "small-sst2" / "README.md").read_text(encoding="utf-8")
    [figure] = re.findall(r"int8 \(this folder\) \| (\d+\.\d+) %", card)
    task = get_task("sst2")
    rows = load_split(task, "validation", shared_data / "glue")
    logits = list(Predictor.load("small-sst2").logits((row.text, None) for row in rows))
    accuracy = score(task, np.stack(logits), [row.label for row in rows])["accuracy"]
    # One row of 872 on the border of two labels may fall to either side on another processor.
    assert 100 * accuracy == pytest.approx(float(figure), abs=0.12)
