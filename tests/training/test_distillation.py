from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from squeezebert import Classifier
from squeezebert.cli import main
from squeezebert.data.examples import Example
from squeezebert.data.tasks import get_task
from squeezebert.errors import InputError
from squeezebert.files import read_json
from squeezebert.training.distillation import read_distillation
from squeezebert.training.finetune import finetune
from squeezebert.training.settings import FinetuneSettings
from squeezebert.training.teacher import Teacher

from .conftest import write_reviews
from .teachers import LABELS, save_roberta

Make = Callable[..., FinetuneSettings]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "squeezebert" / "teachers"


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    return save_roberta(tmp_path / "teacher", ["a gripping film, in all", "a dull story, and then it goes on"])


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _same(one: Path, other: Path) -> bool:
    ours, theirs = _weights(one), _weights(other)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_alpha_0_is_plain_finetuning(settings: Make, teacher: str, tmp_path: Path, cache: Path) -> None:
    finetune(settings(output=tmp_path / "plain"))
    finetune(settings(output=tmp_path / "distilled", teacher=teacher, alpha=0))
    assert _same(tmp_path / "distilled", tmp_path / "plain")
    finetune(settings(output=tmp_path / "half", teacher=teacher))
    assert not _same(tmp_path / "half", tmp_path / "plain")
    assert [*cache.glob("*.npy")]  # only the third run asked the teacher, but it did


def test_alpha_1_takes_the_same_steps_whatever_the_labels(settings: Make, teacher: str, tmp_path: Path) -> None:
    rows = (tmp_path / "train.csv").read_text()
    finetune(settings(output=tmp_path / "right", teacher=teacher, alpha=1, evaluate_every=2))
    swapped = rows.replace(",positive", ",x").replace(",negative", ",positive").replace(",x", ",negative")
    assert swapped != rows
    (tmp_path / "train.csv").write_text(swapped)
    finetune(settings(output=tmp_path / "wrong", teacher=teacher, alpha=1, evaluate_every=2))
    assert _same(tmp_path / "wrong", tmp_path / "right")


def test_a_student_learns_what_its_teacher_says(settings: Make, teacher: str, tmp_path: Path) -> None:
    # The labels of the table say something else, and the teacher has its outputs the other way round.
    train = tmp_path / "train.csv"
    save_roberta(Path(teacher), train.read_text().splitlines(), labels=LABELS[::-1])
    result = finetune(settings(teacher=teacher, alpha=1, epochs=30, dropout=0, learning_rate=3e-3, evaluate_every=30))
    assert result is not None
    with train.open(newline="", encoding="utf-8") as file:
        examples = [Example(row["text"]) for row in csv.DictReader(file)]
    logits = Teacher.open(teacher).load(torch.device("cpu"), 512).logits(examples)
    said = [LABELS[::-1][index] for index in logits.argmax(1)]
    assert 4 < said.count("positive") < 40
    predictions = Classifier.load(result.folder).predict([example.text for example in examples])
    # A random teacher is of two minds about some texts; outputs in a wrong order would agree on those alone.
    assert np.mean([each.label == label for each, label in zip(predictions, said, strict=True)]) >= 0.8


def test_epochs_seeds_and_runs_cost_one_pass(
    settings: Make, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = Teacher.load
    monkeypatch.setattr(Teacher, "load", lambda self, *args: loaded.append(self.source) or load(self, *args))
    finetune(settings(teacher=teacher, seeds=(1, 2, 3), epochs=2))
    finetune(settings(teacher=teacher, output=tmp_path / "other", alpha=0.9, temperature=2))
    assert loaded == [teacher]


def test_a_run_goes_on_with_its_own_teacher_only(settings: Make, teacher: str, tmp_path: Path) -> None:
    finetune(settings(teacher=teacher, epochs=1))
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"- teacher: {teacher}, roberta" in card
    assert "| `alpha` | `0.5` |" in card
    assert f"squeezebert finetune --model tiny --output {tmp_path}/out" in card
    assert f"--teacher {teacher}" in card
    # The same teacher in another place is the same teacher.
    moved = str(Path(teacher).rename(tmp_path / "moved"))
    assert finetune(settings(teacher=moved, epochs=1, resume=True)) is not None
    with pytest.raises(InputError, match=r"temperature was 1\.0 when the run began, and is 2\.0"):
        finetune(settings(teacher=moved, epochs=1, temperature=2, resume=True))
    other = save_roberta(tmp_path / "other", ["another one"], seed=1)
    with pytest.raises(InputError, match="teacher data"):
        finetune(settings(teacher=other, epochs=1, resume=True))


def test_unlabelled_texts_join(settings: Make, teacher: str, tmp_path: Path) -> None:
    extra = tmp_path / "extra.csv"
    write_reviews(extra, 36, offset=44)
    with extra.open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    with extra.open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    finetune(settings(teacher=teacher, unlabelled=extra, epochs=1))
    # 80 examples in batches of 8.
    assert read_json(tmp_path / "out" / "metrics.json")["seeds"][0]["step"] == 10
    assert (
        f"- unlabelled: {extra}, 36 rows that only the teachers label" in (tmp_path / "out" / "README.md").read_text()
    )


@pytest.mark.parametrize("kind", ["regression", "multi_label"])
def test_values_and_several_labels(settings: Make, tmp_path: Path, kind: str) -> None:
    for name in ("train", "dev"):
        path = tmp_path / f"{name}.csv"
        values = ("1.5", "-1") if kind == "regression" else ("negative;positive", "negative")
        path.write_text(path.read_text().replace(",positive", f",{values[0]}").replace(",negative", f",{values[1]}"))
    labels = ("score",) if kind == "regression" else LABELS
    problem = "regression" if kind == "regression" else "multi_label_classification"
    teacher = save_roberta(tmp_path / "teacher", ["a film"], labels=labels, problem_type=problem)
    extra = write_reviews(tmp_path / "extra.csv", 12, offset=60)
    finetune(settings(teacher=teacher, unlabelled=extra, epochs=1, **{kind: True}))
    assert read_json(tmp_path / "out" / "metrics.json")["seeds"][0]["step"] == 7


def test_other_labels_are_refused_before_anything_is_written(settings: Make, tmp_path: Path) -> None:
    teacher = save_roberta(tmp_path / "teacher", ["a film"], labels=("good", "bad"))
    with pytest.raises(InputError, match=r"its labels are good, bad, but those of train\.csv are negative, positive"):
        finetune(settings(teacher=teacher))
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_cannot_answer_may_be_mended(settings: Make, teacher: str, tmp_path: Path) -> None:
    weights = Path(teacher) / "model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:100])
    with pytest.raises(InputError, match="transformers cannot load it as a classifier"):
        finetune(settings(teacher=teacher, epochs=1))
    assert not (tmp_path / "out").exists()
    weights.write_bytes(sound)
    assert finetune(settings(teacher=teacher, epochs=1)) is not None


def test_unlabelled_texts_of_a_glue_task_have_its_columns(teacher: str, tmp_path: Path) -> None:
    table = tmp_path / "test.tsv"
    table.write_text("index\tsentence\n0\ta gripping film\n1\ta dull story\n")
    settings = FinetuneSettings(
        model="tiny", output=tmp_path / "out", task="sst2", teacher=(teacher, teacher), unlabelled=table
    )
    found = read_distillation(settings, get_task("sst2"))
    assert [example.text for example in found.unlabelled] == ["a gripping film", "a dull story"]
    assert len(found.teachers) == 2


def test_settings_about_teachers_need_one(tmp_path: Path, teacher: str) -> None:
    common: dict[str, Any] = {"model": "tiny", "output": tmp_path, "task": "sst2"}
    for name, value in (("alpha", 0.7), ("temperature", 2), ("unlabelled", "x.csv")):
        with pytest.raises(InputError, match=f"{name} goes with a teacher"):
            FinetuneSettings(**common, **{name: value})
    for name, value in (("alpha", 1.5), ("alpha", float("nan")), ("temperature", 0)):
        with pytest.raises(InputError, match=f"{name} must be"):
            FinetuneSettings(**common, teacher=teacher, **{name: value})
    with pytest.raises(InputError, match="unlabelled texts teach nothing"):
        FinetuneSettings(**common, teacher=teacher, alpha=0, unlabelled="x.csv")
    assert "teacher" not in FinetuneSettings(**common).to_dict()
    assert FinetuneSettings(**common, teacher=teacher).to_dict()["teacher"] == [teacher]


def test_distill_is_finetune_with_a_teacher(
    settings: Make, teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = settings(epochs=1)
    words = ["--model", "tiny", "--train", str(chosen.train), "--dev", str(chosen.dev), "--epochs", "1"]
    words += ["--output", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(SystemExit):
        main(["distill", *words])
    assert "--teacher" in capsys.readouterr().err
    assert main(["distill", *words, "--teacher", teacher, teacher, "--alpha", "1"]) == 0
    assert "accuracy" in capsys.readouterr().out
