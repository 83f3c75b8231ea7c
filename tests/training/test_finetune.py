from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score

from squeezebert import checkpoint
from squeezebert.data.examples import Example
from squeezebert.data.tables import derive_task
from squeezebert.errors import InputError
from squeezebert.model.config import ModelConfig
from squeezebert.tokenizer import Tokenizer
from squeezebert.training import finetune as module
from squeezebert.training.batches import EncodedExamples
from squeezebert.training.finetune import FinetuneResult, finetune
from squeezebert.training.labelled import LabelledData, read_labelled_data
from squeezebert.training.run_folder import check_space, occupy
from squeezebert.training.settings import FinetuneSettings

Make = Callable[..., FinetuneSettings]


def _run(settings: FinetuneSettings, data: LabelledData | None = None) -> FinetuneResult:
    result = finetune(settings, data)
    assert result is not None
    return result


def _predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "dev_predictions.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_model_that_learned(settings: Make, capsys: pytest.CaptureFixture[str]) -> None:
    result = _run(settings(epochs=12, dropout=0.0, evaluate_every=4))
    output = result.folder
    assert {path.name for path in output.iterdir()} == {
        "README.md", "config.json", "curves.png", "dev_predictions.jsonl", "metrics.json", "model.safetensors",
        "seed-42", "settings.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    }  # fmt: skip
    assert {path.name for path in (output / "seed-42").iterdir()} == {
        "dev_predictions.jsonl", "log.jsonl", "metrics.json", "tensorboard",
    }  # fmt: skip
    # The adjectives decide the label, so a model that trains at all learns them.
    assert result.metrics["mean"]["dev"]["accuracy"] == 1.0
    assert result.metrics["sd"] is None
    said = capsys.readouterr().err
    assert "tokens learned from the training texts" in said
    assert "every weight is random" in said
    assert "dev accuracy" in result.describe()


def test_figures_are_scikit_learns_on_the_saved_predictions(settings: Make) -> None:
    result = _run(settings(epochs=1))
    rows = _predictions(result.folder)
    assert [row["index"] for row in rows] == list(range(20))
    labels = [row["label"] for row in rows]
    assert labels == [1 - number % 2 for number in range(20)]
    predicted = np.argmax([row["logits"] for row in rows], axis=1)
    figures = result.metrics["mean"]["dev"]
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert figures["f1_macro"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    loss = torch.nn.functional.cross_entropy(torch.tensor([row["logits"] for row in rows]), torch.tensor(labels))
    assert figures["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_the_saved_model_gives_the_saved_predictions(settings: Make) -> None:
    result = _run(settings(evaluate_every=0.5))
    loaded = checkpoint.load(result.folder)
    assert loaded.tokenizer is not None
    assert loaded.config.labels == ("negative", "positive")
    assert loaded.extra["max_length"] == 512
    assert loaded.extra["pair"] is False
    assert 'classify --model . "a text to label"' in (result.folder / "README.md").read_text()
    best = result.metrics["seeds"][0]
    assert loaded.extra["figures"] == best["figures"]
    lines = (result.folder.parent / "dev.csv").read_text().splitlines()[1:]
    for line, row in zip(lines, _predictions(result.folder), strict=True):
        encoding = loaded.tokenizer.encode(line.rpartition(",")[0].strip('"'))
        logits = loaded.model(torch.tensor([encoding.input_ids])).logits
        torch.testing.assert_close(logits, torch.tensor([row["logits"]]), rtol=1e-4, atol=1e-5)


def test_several_seeds_give_mean_and_deviation_and_leave_the_best(settings: Make) -> None:
    # Of an epoch at this rate, the seeds learn unequally much.
    result = _run(settings(seeds=(1, 2, 3), epochs=1, learning_rate=5e-4))
    metrics = result.metrics
    assert json.loads((result.folder / "metrics.json").read_text()) == metrics
    losses = [each["figures"]["dev"]["loss"] for each in metrics["seeds"]]
    assert len(set(losses)) == 3
    assert metrics["mean"]["dev"]["loss"] == pytest.approx(np.mean(losses))
    assert metrics["sd"]["dev"]["loss"] == pytest.approx(np.std(losses, ddof=1))
    scores = [each["figures"]["dev"]["accuracy"] for each in metrics["seeds"]]
    best = metrics["best_seed"]
    assert scores[best - 1] == max(scores)
    for name in ("model.safetensors", "config.json"):
        assert (result.folder / name).read_bytes() == (result.folder / f"seed-{best}" / "model" / name).read_bytes()
    weights = [load_file(result.folder / f"seed-{seed}" / "model" / "model.safetensors") for seed in (1, 2)]
    assert not torch.equal(weights[0]["classifier.weight"], weights[1]["classifier.weight"])
    assert "±" in result.describe()
    assert "±" in (result.folder / "README.md").read_text()


def test_the_card_says_what_was_done(settings: Make) -> None:
    chosen = settings(epochs=1)
    result = _run(chosen)
    card = (result.folder / "README.md").read_text()
    for part in (
        chosen.command(),
        "44 rows",
        "20 rows",
        "`negative`",
        "| `learning_rate` | `0.002` |",
        torch.__version__,
    ):
        assert part in card
    assert f"{result.metrics['mean']['dev']['accuracy']:.4f}" in card
    assert "`None`" not in card
    assert (result.folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_run_says_so(settings: Make, capsys: pytest.CaptureFixture[str]) -> None:
    first = _run(settings(epochs=1))
    before = (first.folder / "model.safetensors").stat().st_mtime_ns
    assert _run(settings(epochs=1, resume=True)).metrics == first.metrics
    assert "this run is finished" in capsys.readouterr().err
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_finished_run_is_that_of_its_own_command_only(settings: Make, tmp_path: Path) -> None:
    folder = _run(settings(epochs=1)).folder
    with pytest.raises(InputError, match="epochs was 1 when the run began, and is 2 now"):
        finetune(settings(epochs=2, resume=True))
    before = {name: (tmp_path / name).read_text() for name in ("train.csv", "dev.csv")}
    # The same rows have the same classes, under other names.
    for name, text in before.items():
        (tmp_path / name).write_text(text.replace(",positive", ",good").replace(",negative", ",bad"))
    with pytest.raises(InputError, match=r"labels was \['negative', 'positive'\] .* is \['bad', 'good'\] now"):
        finetune(settings(epochs=1, resume=True))
    (tmp_path / "train.csv").write_text(before["train.csv"] + "one more,positive\n")
    (tmp_path / "dev.csv").write_text(before["dev.csv"])
    with pytest.raises(InputError, match="the train data"):
        finetune(settings(epochs=1, resume=True))
    (tmp_path / "train.csv").write_text(before["train.csv"])
    stored = json.loads((folder / "settings.json").read_text())
    stored["settings"]["num_processes"] = 2
    (folder / "settings.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="num_processes was 2 when the run began, and is 1 now"):
        finetune(settings(epochs=1, resume=True))


def test_a_run_goes_on_from_its_own_start_only(settings: Make, classifier_folder: Path, tmp_path: Path) -> None:
    start = shutil.copytree(classifier_folder, tmp_path / "start")
    changes = {"model": str(start), "epochs": 1}
    _run(settings(**changes))
    assert _run(settings(**changes, resume=True))
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-5}))
    with pytest.raises(InputError, match="the model data"):
        finetune(settings(**changes, resume=True))


def test_two_runs_in_one_folder(settings: Make, tmp_path: Path) -> None:
    with (
        occupy(tmp_path / "out", resume=False),
        pytest.raises(InputError, match="another run is at work in this folder"),
    ):
        finetune(settings())


def test_resume_without_a_run_begins_one(settings: Make) -> None:
    assert _run(settings(epochs=1, resume=True)).metrics["task"] == "train.csv"


def test_a_folder_in_use_is_left_alone(settings: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files already"):
        finetune(settings())
    with pytest.raises(InputError, match="no run to resume"):
        finetune(settings(resume=True))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_an_output_that_is_a_file(settings: Make, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        finetune(settings())


class _Killed(BaseException):
    """Stands for kill -9."""


def _interrupt_after_first_seed(settings: FinetuneSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until the second of two seeds is about to begin."""
    train_seed = module._train_seed

    def train_first(*args: Any) -> None:
        if args[-1] != settings.seeds[0]:
            raise _Killed
        train_seed(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_train_seed", train_first)
        with pytest.raises(_Killed):
            finetune(settings)


def test_a_broken_run_goes_on_with_the_next_seed(
    settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(seeds=(1, 2), epochs=1)
    _interrupt_after_first_seed(chosen, monkeypatch)
    first = (tmp_path / "out" / "seed-1" / "model" / "model.safetensors").stat().st_mtime_ns
    # What a process that is killed while saving leaves.
    (tmp_path / "out" / "seed-1" / "model" / ".new-abc").mkdir()
    (tmp_path / "out" / "seed-1" / "model" / ".new-abc" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "out" / ".model.safetensors.123.tmp").write_bytes(b"half")
    resumed = _run(settings(seeds=(1, 2), epochs=1, resume=True, save_every=3))
    assert (tmp_path / "out" / "seed-1" / "model" / "model.safetensors").stat().st_mtime_ns == first
    whole = _run(settings(seeds=(1, 2), epochs=1, output=tmp_path / "whole"))
    assert resumed.metrics["mean"] == whole.metrics["mean"]
    assert not list(resumed.folder.rglob(".*"))
    for name in ("model.safetensors", "dev_predictions.jsonl"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_run_goes_on_under_its_own_settings_only(
    settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(seeds=(1, 2), epochs=1)
    _interrupt_after_first_seed(chosen, monkeypatch)
    for changes, words in (
        ({"learning_rate": 1e-3}, "learning_rate was 0.002 when the run began, and is 0.001 now"),
        ({"seeds": (1, 2, 3)}, "seeds was"),
        ({"dropout": 0.0}, "dropout was"),
    ):
        with pytest.raises(InputError, match=words):
            finetune(settings(**{"seeds": (1, 2), "epochs": 1, "resume": True, **changes}))
    with (tmp_path / "dev.csv").open("a") as file:
        file.write("another,positive\n")
    with pytest.raises(InputError, match="the dev data"):
        finetune(settings(seeds=(1, 2), epochs=1, resume=True))


def test_several_labels_a_text(settings: Make, tmp_path: Path) -> None:
    texts = ["red box", "blue box", "red blue box", "box"] * 4
    rows = [{"text": text, "label": [word for word in ("red", "blue") if word in text]} for text in texts]
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = _run(
        settings(
            train=tmp_path / "train.jsonl",
            dev=tmp_path / "dev.jsonl",
            multi_label=True,
            epochs=60,
            dropout=0.0,
            evaluate_every=20,
        )
    )
    assert result.metrics["primary_metric"] == "f1_micro"
    assert result.metrics["mean"]["dev"]["f1_micro"] > 0.9
    assert checkpoint.read_config(result.folder).problem_type == "multi_label_classification"
    row = _predictions(result.folder)[2]
    assert row["label"] == [1, 1]
    # The mean over classes of the binary cross-entropies, as logged in training.
    logits = torch.tensor([each["logits"] for each in _predictions(result.folder)])
    labels = torch.tensor([each["label"] for each in _predictions(result.folder)], dtype=torch.float32)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert result.metrics["mean"]["dev"]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_number_for_a_pair(settings: Make, tmp_path: Path) -> None:
    rows = "".join(f"a {word},b,{value}\n" for word, value in [("high", 4.5), ("low", 0.5)] * 10)
    for name in ("train.csv", "dev.csv"):
        (tmp_path / name).write_text("first,second,score\n" + rows)
    columns = {"text_column": "first", "pair_column": "second", "label_column": "score"}
    result = _run(settings(**columns, regression=True, epochs=30, dropout=0.0, evaluate_every=10))
    assert result.metrics["mean"]["dev"]["pearson"] > 0.9
    config = checkpoint.read_config(result.folder)
    assert (config.num_labels, config.problem_type) == (1, "regression")
    assert checkpoint.load(result.folder).extra["pair"] is True
    assert 'classify --model . "the first text" --pair "the second text"' in (result.folder / "README.md").read_text()
    rows_said = _predictions(result.folder)
    errors = [(row["logits"][0] - row["label"]) ** 2 for row in rows_said]
    assert result.metrics["mean"]["dev"]["loss"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_a_finetuned_model_is_a_start_for_another_task(
    settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = _run(settings(epochs=1)).folder
    renamed = (tmp_path / "dev.csv").read_text().replace("positive", "good").replace("negative", "bad")
    (tmp_path / "other.csv").write_text(renamed)
    other = {"model": str(start), "train": tmp_path / "other.csv", "dev": tmp_path / "other.csv", "learning_rate": 1e-7}
    capsys.readouterr()
    second = _run(settings(**other, epochs=1, output=tmp_path / "second")).folder
    said = capsys.readouterr().err
    assert "its classifier was made for negative, positive" in said
    assert "tokens learned" not in said
    before, after = load_file(start / "model.safetensors"), load_file(second / "model.safetensors")
    name = "transformer.encoder.layers.0.attention.query.weight"
    torch.testing.assert_close(before[name], after[name], rtol=0, atol=1e-4)
    assert (before["classifier.weight"] - after["classifier.weight"]).abs().max() > 1e-3
    third = _run(settings(model=str(start), epochs=1, learning_rate=1e-7, output=tmp_path / "third")).folder
    kept = load_file(third / "model.safetensors")["classifier.weight"]
    torch.testing.assert_close(kept, before["classifier.weight"], rtol=0, atol=1e-4)


def test_a_start_with_the_same_labels_in_another_order(
    settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = _run(settings(epochs=1)).folder
    chosen = settings(model=str(start), epochs=1, learning_rate=1e-7, output=tmp_path / "second")
    data = read_labelled_data(chosen)
    task = dataclasses.replace(data.task, labels=("positive", "negative"))
    train, dev = ([dataclasses.replace(e, label=1 - e.label) for e in part] for part in (data.train, data.dev["dev"]))  # type: ignore[operator]
    second = _run(chosen, LabelledData(task=task, train=train, dev={"dev": dev}, notes=())).folder
    assert capsys.readouterr().err.count("labels were put in the order of the task's") == 1
    assert checkpoint.read_config(second).labels == ("positive", "negative")
    before, after = load_file(start / "model.safetensors"), load_file(second / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        torch.testing.assert_close(after[name], before[name].flip(0), rtol=0, atol=1e-4)


def test_the_loss_of_huge_values_is_a_number() -> None:
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    examples = EncodedExamples([Example("x", None, 3e25), Example("x", None, -1e25)], tokenizer, 8)
    config = ModelConfig(num_labels=1, problem_type="regression")
    assert module.mean_loss(np.zeros((2, 1), np.float32), examples, config) == pytest.approx(5e50)


def test_a_figure_that_is_no_number_ends_the_run(settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "score", lambda *args: {"accuracy": math.nan})
    with pytest.raises(InputError, match="dev accuracy is nan; try a lower learning rate"):
        finetune(settings(epochs=1))


def test_examples_in_memory(settings: Make, tmp_path: Path) -> None:
    examples = [Example(f"{'good' if number % 2 else 'bad'} one", None, number % 2) for number in range(20)]
    task = derive_task([("no", "1"), ("yes", "2"), ("no", "3")], name="mine")
    data = LabelledData(task=task, train=examples, dev={"held_out": examples[:6]}, notes=("mine: 20 texts",))
    result = _run(FinetuneSettings(model="tiny", output=tmp_path / "out", epochs=1, device="cpu"), data)
    assert list(result.metrics["mean"]) == ["held_out"]
    assert "Classifier('tiny').fit(" in (result.folder / "README.md").read_text()


def test_a_vocabulary_that_is_given(settings: Make, tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dull", "gripping", "film"]
    Tokenizer.from_vocab(tokens).save(tmp_path / "vocabulary")
    result = _run(settings(vocab=str(tmp_path / "vocabulary"), epochs=1))
    assert (result.folder / "vocab.txt").read_text().split() == tokens
    with pytest.raises(InputError, match="wrong vocabulary"):
        finetune(settings(model=str(_tiny(tmp_path)), vocab=str(tmp_path / "vocabulary"), output=tmp_path / "two"))


def _tiny(tmp_path: Path) -> Path:
    """A model of another vocabulary."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "x"]
    Tokenizer.from_vocab(tokens).save(tmp_path / "other vocabulary")
    loaded = checkpoint.load("tiny", vocab=tmp_path / "other vocabulary", max_position_embeddings=32)
    checkpoint.save(loaded.model, tmp_path / "tiny", tokenizer=loaded.tokenizer)
    return tmp_path / "tiny"


def test_texts_longer_than_the_model_takes(settings: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_length 64 is more than the 32 tokens"):
        finetune(settings(model=str(_tiny(tmp_path)), max_length=64))
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_too_small_is_refused_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(1000, 250)  # 1.001 MB

    class Usage:
        free = 10_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    check_space(tmp_path / "new", model, models=0)
    with pytest.raises(InputError, match="10 MB free, but the run needs 10 MB"):
        check_space(tmp_path / "new", model, models=1)


def test_early_stopping_and_fractions_of_an_epoch(settings: Make) -> None:
    result = _run(settings(epochs=20, evaluate_every=0.5, patience=2))
    log = [json.loads(line) for line in (result.folder / "seed-42" / "log.jsonl").read_text().splitlines()]
    evaluated = [line["step"] for line in log if "evaluation" in line]
    assert evaluated == list(range(3, 3 * len(evaluated) + 1, 3))
    assert evaluated[-1] < 120
    # The two evaluations after the best one brought nothing.
    assert result.metrics["seeds"][0]["step"] == evaluated[-3]
