from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from squeezebert import bert, checkpoint
from squeezebert.errors import InputError
from squeezebert.files import read_json
from squeezebert.tokenizer import Tokenizer
from squeezebert.training import embedding_stage
from squeezebert.training import pretrain as module
from squeezebert.training.loop import Interrupted
from squeezebert.training.pretrain import PretrainSettings, evaluate_run, pretrain
from squeezebert.training.progress import read_log
from squeezebert.training.recipes import load_recipe

RECIPE = """
description = "distillation"
optimizer = "adamw"
dropout = 0.0
weight_decay = 0.0
evaluate_every = 20
held_out_rows = 32
save_every = 10
precision = "fp32"
divergence = 0.0

[[phases]]
steps = 40
length = 24
batch_size = 8
learning_rate = 3e-3
micro_batch_size = 4

[distillation]
relations = 0.1
embedding_steps = 60
embedding_tokens = 64
embedding_learning_rate = 2e-2
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, pretraining_corpus: Path) -> str:
    """A BERT with the corpus's vocabulary, twice as deep as ``tiny``, of another width."""
    import transformers

    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = Tokenizer.load(pretraining_corpus)
    tokenizer.save(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=48, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def settings(tmp_path: Path, pretraining_corpus: Path, teacher: str) -> Callable[..., PretrainSettings]:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)

    def make(name: str = "run", *changes: str, **values: Any) -> PretrainSettings:
        common = {"corpus": pretraining_corpus, "size": "tiny", "device": "cpu", "teacher": teacher}
        common["command"] = ("squeezebert", "pretrain")
        return PretrainSettings(
            **{**common, "recipe": load_recipe(str(recipe), changes), "output": tmp_path / name, **values}
        )

    return make


def test_a_run_leaves_an_encoder_near_its_teacher(settings: Callable[..., PretrainSettings], teacher: str) -> None:
    chosen = settings()
    result = pretrain(chosen)
    assert result is not None
    scored = [line["evaluation"]["held_out"] for line in read_log(chosen.output) if "evaluation" in line]
    assert scored[-1]["loss"] < scored[0]["loss"]
    assert {"embedding_error", "layer_1_error", "layer_2_error", "relation_loss", "loss"} == set(scored[-1])
    # The first stage alone brings the embeddings near: the log of its last step.
    stage = read_log(chosen.output / "embedding")
    assert stage[-1]["evaluation"]["random_tokens"]["embedding_error"] < 0.3 * stage[0]["loss"]
    assert {path.name for path in chosen.output.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "settings.json",
        "log.jsonl", "metrics.json", "curves.png", "README.md", "tensorboard", "embedding",
    } | ({".lock"} if (chosen.output / ".lock").exists() else set())  # fmt: skip
    loaded = checkpoint.load(chosen.output, "encoder")
    assert loaded.extra["pretraining"]["teacher"] == teacher
    assert loaded.report.missing == ()
    card = (chosen.output / "README.md").read_text()
    assert teacher in card
    assert f"| layer 2 error | {scored[-1]['layer_2_error']:.4f} |" in card


def test_resumed_in_either_stage_it_is_the_same_run(
    settings: Callable[..., PretrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = settings("whole")
    pretrain(whole)
    for room, stop in ((embedding_stage, 25), (module, 17)):
        fit = room.fit

        def interrupted(*, fit: Any = fit, stop: int = stop, **options: Any) -> Any:
            """Run as far as a step that a state follows, then die."""
            limit = options["settings"].__class__(**{**vars(options["settings"]), "total_steps": stop})
            fit(**{**options, "settings": limit})
            raise Interrupted("killed")

        chosen = settings(f"{room.__name__}")
        with monkeypatch.context() as patch:
            patch.setattr(room, "fit", interrupted)
            with pytest.raises(Interrupted):
                pretrain(chosen)
        pretrain(settings(room.__name__, resume=True))
        ours, theirs = (load_file(each.output / "model.safetensors") for each in (chosen, whole))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_dense_model_is_cut_into_groups(
    settings: Callable[..., PretrainSettings], teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = str(tmp_path / "dense")
    bert.convert(teacher, dense)
    changes = [
        "groups=4",
        "closing=0.5",
        "distillation.embedding_steps=0",
        "log_every=1",
        "phases.0.learning_rate=2e-3",
    ]
    start = {"size": None, "model": dense, "teacher": dense}
    chosen = settings("whole", *changes, **start)
    result = pretrain(chosen)
    assert result is not None
    config = checkpoint.load(chosen.output, "encoder").config
    assert (config.q_groups, config.k_groups, config.v_groups) == (4, 4, 4)
    assert (config.post_attention_groups, config.intermediate_groups, config.output_groups) == (1, 4, 4)
    # It begins as its teacher, relations, channels and all; the groups, once they are closed, learn.
    log = [line for line in read_log(chosen.output) if "loss" in line]
    assert log[0]["loss"] < 1e-6 < 1e-3 < max(line["loss"] for line in log)
    scored = [line["evaluation"]["held_out"] for line in read_log(chosen.output) if "evaluation" in line]
    assert scored[-1]["layer_4_error"] < scored[0]["layer_4_error"]

    def interrupted(*, fit: Any = module.fit, **options: Any) -> Any:
        fit(**{**options, "settings": replace(options["settings"], total_steps=10)})
        raise Interrupted("killed")

    with monkeypatch.context() as patch:
        patch.setattr(module, "fit", interrupted)
        with pytest.raises(Interrupted):
            pretrain(settings("broken", *changes, **start))
    pretrain(settings("broken", *changes, **start, resume=True))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("broken", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    for words, message in (
        (["groups=4"], "has embeddings already"),
        (["closing=0.2"], "closing goes with groups"),
        (["groups=1"], "groups must be 0, or at least 2"),
        (["groups=4", "distillation.embedding_steps=0", "compile=true"], "compile would begin anew"),
        (["groups=4", "distillation.embedding_steps=0", "divergence=2"], "set divergence=0"),
    ):
        with pytest.raises(InputError, match=message):
            settings("refused", *words)
    with pytest.raises(InputError, match="its layers have groups already"):
        pretrain(settings("refused", "groups=4", "distillation.embedding_steps=0"))
    other = tmp_path / "other"
    checkpoint.save(checkpoint.load("tiny", "encoder", vocab=dense).model, other, tokenizer=Tokenizer.load(dense))
    with pytest.raises(InputError, match="take a teacher of its width"):
        pretrain(settings("refused", *changes, size=None, model=dense, teacher=str(other)))


def test_masked_tokens_may_join(settings: Callable[..., PretrainSettings]) -> None:
    chosen = settings("run", "distillation.mlm=0.5", "distillation.embedding_steps=0", "phases.0.steps=4")
    result = pretrain(chosen)
    assert result is not None
    assert result.metrics is not None
    assert "mlm_loss" in result.metrics["figures"]["held_out"]
    assert checkpoint.find_head(chosen.output) == "masked_lm"
    assert not (chosen.output / "embedding").exists()


def test_the_whole_of_pretraining_may_join(settings: Callable[..., PretrainSettings], pretraining_corpus: Path) -> None:
    heads = ["distillation.mlm=0.5", "distillation.sentence_order=0.25", "distillation.embedding_steps=0"]
    chosen = settings("run", *heads, "phases.0.steps=4", "log_every=1")
    result = pretrain(chosen)
    assert result is not None
    assert result.metrics is not None
    figures = result.metrics["figures"]["held_out"]
    again = evaluate_run(chosen.output, pretraining_corpus, rows=32, device="cpu")["held_out"]
    for name in ("mlm_loss", "mlm_accuracy", "sentence_order_loss", "sentence_order_accuracy"):
        assert figures[name] == pytest.approx(again[name], rel=1e-5)
    # The loss is the distillation's, with its weights.
    layers = (figures["layer_1_error"] + 2 * figures["layer_2_error"]) / 3
    expected = figures["embedding_error"] + layers + 0.1 * figures["relation_loss"]
    expected += 0.5 * figures["mlm_loss"] + 0.25 * figures["sentence_order_loss"]
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)
    # What is logged is what enters the loss.
    logged = [line["mlm_loss"] for line in read_log(chosen.output) if "mlm_loss" in line]
    assert 0.7 < logged[-1] / (0.5 * figures["mlm_loss"]) < 1.4
    assert checkpoint.find_head(chosen.output) == "pretraining"
    assert (chosen.output / "pretraining_curves.png").stat().st_size > 1000


def test_a_run_stopped_in_its_first_stage_says_so(settings: Callable[..., PretrainSettings]) -> None:
    result = pretrain(settings(max_minutes=1e-9))
    assert result is not None
    assert result.metrics is None
    finished = pretrain(settings(resume=True))
    assert finished is not None
    assert finished.metrics is not None


@pytest.mark.parametrize("name", ["cut-laptop", "distil-laptop", "joint-laptop", "pairs-laptop", "sentences-laptop"])
def test_the_recipes_of_the_package_run(name: str, pretraining_corpus: Path, tmp_path: Path) -> None:
    import transformers

    tokenizer = Tokenizer.load(pretraining_corpus)
    tokenizer.save(tmp_path / "teacher")
    config = transformers.BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=512,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(tmp_path / "teacher")
    student: dict[str, Any] = {"size": "tiny"}
    phases = load_recipe(name).phases
    changes = [f"phases.{i}.{field}" for i in range(len(phases)) for field in ("steps=2", "batch_size=4")]
    if name == "cut-laptop":
        bert.convert(tmp_path / "teacher", tmp_path / "dense")
        student = {"model": str(tmp_path / "dense")}
    else:
        changes.append("distillation.embedding_steps=2")
    recipe = load_recipe(name, changes)
    assert recipe.tokens == 2 * 4 * sum(phase.length for phase in phases)
    result = pretrain(
        PretrainSettings(
            corpus=pretraining_corpus, recipe=recipe, output=tmp_path / "run", device="cpu",
            teacher=str(tmp_path / "teacher"), **student,
        )
    )  # fmt: skip
    assert result is not None
    assert result.metrics is not None
    assert checkpoint.load(tmp_path / "run", "encoder").config.q_groups == 4


def test_the_settings_must_fit_the_teacher(
    settings: Callable[..., PretrainSettings], teacher: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="distillation needs a teacher"):
        settings(teacher=None)
    with pytest.raises(InputError, match="takes 64 tokens, but the recipe has rows of 80"):
        pretrain(settings("long", "phases.0.length=80"))
    with pytest.raises(InputError, match="student's 2 layers"):
        pretrain(settings("layers", "distillation.layers=[1, 2, 3]"))
    pretrain(settings("run", "phases.0.steps=2", "distillation.embedding_steps=2"))
    stored = read_json(tmp_path / "run" / "settings.json")["settings"]
    assert stored["distillation"]["layers"] == []
    import shutil

    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    tokens = [*(other / "vocab.txt").read_text().split()]
    Tokenizer.from_vocab([*tokens[:-1], "zebra"]).save(other)
    last = len(tokens) - 1
    with pytest.raises(
        InputError, match=rf"another vocabulary than the corpus's \(token {last} is 'zebra', there 'p'\)"
    ):
        pretrain(settings("vocabulary", teacher=str(other)))
