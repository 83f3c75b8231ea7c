from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from squeezebert import checkpoint
from squeezebert.data.masking import Masking, Vocabulary
from squeezebert.data.pretraining import PretrainingSource
from squeezebert.data.shards import Corpus, CorpusWriter
from squeezebert.errors import InputError
from squeezebert.files import read_json
from squeezebert.model.config import SIZES
from squeezebert.tokenizer import Tokenizer
from squeezebert.training import pretrain as module
from squeezebert.training.finetune import finetune
from squeezebert.training.loop import Interrupted
from squeezebert.training.pretrain import PhaseBatches, PretrainSettings, evaluate_run, pretrain
from squeezebert.training.pretraining_loss import PretrainingLoss
from squeezebert.training.progress import read_log
from squeezebert.training.recipes import load_recipe, recipe_names
from squeezebert.training.run_folder import occupy
from squeezebert.training.speed import training_flops

RECIPE = """
description = "two short phases"
optimizer = "adamw"
dropout = 0.1
evaluate_every = 4
held_out_rows = 32
save_every = 3
log_every = 1
precision = "fp32"

[[phases]]
steps = 7
length = 16
batch_size = 6
learning_rate = 5e-3
micro_batch_size = 3

[[phases]]
steps = 5
length = 32
batch_size = 4
learning_rate = 2e-3
"""


@pytest.fixture
def settings(tmp_path: Path, pretraining_corpus: Path) -> Callable[..., PretrainSettings]:
    """A function that makes settings of a run of 7 + 5 steps."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)

    def make(name: str = "run", *changes: str, **values: Any) -> PretrainSettings:
        loaded = load_recipe(str(recipe), changes)
        common = {"corpus": pretraining_corpus, "size": "tiny", "device": "cpu", "command": ("squeezebert", "pretrain")}
        return PretrainSettings(**{**common, "recipe": loaded, "output": tmp_path / name, **values})

    return make


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_run(folder: Path, expected: Path) -> None:
    """The same curve and the same weights, bit for bit."""

    def curve(run: Path) -> list[Any]:
        timed = ("per_second", "seconds_left", "projected", "utilisation")
        return [{k: v for k, v in line.items() if not any(t in k for t in timed)} for line in read_log(run)]

    assert curve(folder) == curve(expected)
    ours, theirs = weights(folder), weights(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, pretraining_corpus: Path) -> Path:
    """The run that every interrupted one has to equal."""
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "recipe.toml").write_text(RECIPE)
    recipe = load_recipe(str(folder / "recipe.toml"))
    command = ("squeezebert", "pretrain", "--corpus", str(pretraining_corpus))
    pretrain(
        PretrainSettings(
            corpus=pretraining_corpus, recipe=recipe, size="tiny", output=folder / "run", device="cpu", command=command
        )
    )
    return folder / "run"


def test_a_run_goes_on_from_a_checkpoint(
    settings: Callable[..., PretrainSettings], unbroken: Path, pretraining_corpus: Path, tmp_path: Path
) -> None:
    start = {"size": None, "model": str(unbroken)}
    still = ("phases.0.learning_rate=1e-12", "phases.1.learning_rate=1e-12", "dropout=0.0")
    result = pretrain(settings("more", *still, **start))
    assert result is not None
    assert result.metrics is not None
    assert result.metrics["start"] == str(unbroken)
    # Heads included, it is the checkpoint, which has hardly moved.
    ours, theirs = weights(tmp_path / "more"), weights(unbroken)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-9) for name in theirs)
    before = evaluate_run(unbroken, pretraining_corpus, rows=32, device="cpu")["held_out"]
    assert result.metrics["figures"]["held_out"]["mlm_loss"] == pytest.approx(before["mlm_loss"], rel=1e-5)
    assert str(unbroken) in (tmp_path / "more" / "README.md").read_text()
    # A run resumed after its start was changed would be another one.
    copy = tmp_path / "copy"
    shutil.copytree(unbroken, copy)
    pretrain(settings("again", *still, size=None, model=str(copy), max_minutes=1e-9))
    checkpoint.save(checkpoint.load("tiny", "pretraining", vocab=copy).model, copy)
    with pytest.raises(InputError, match="model"):
        pretrain(settings("again", *still, size=None, model=str(copy), resume=True))


def test_where_a_run_begins_is_told_once(settings: Callable[..., PretrainSettings], unbroken: Path) -> None:
    with pytest.raises(InputError, match="give either a size, for random weights, or a model"):
        settings(model=str(unbroken))
    with pytest.raises(InputError, match="give either a size, for random weights, or a model"):
        settings(size=None)
    with pytest.raises(InputError, match="name it with --size"):
        settings(size=None, model="random:small")


def test_run_folder_holds_checkpoint_curves_card_and_figures(unbroken: Path, pretraining_corpus: Path) -> None:
    assert {path.name for path in unbroken.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "settings.json",
        "log.jsonl", "metrics.json", "curves.png", "README.md", "tensorboard",
    }  # fmt: skip
    assert "transformer.embeddings.word_embeddings.weight" in weights(unbroken)
    log = read_log(unbroken)
    assert [line["step"] for line in log if "evaluation" in line] == [4, 7, 8, 12]
    assert [line["length"] for line in log if "loss" in line] == [16] * 7 + [32] * 5
    metrics = read_json(unbroken / "metrics.json")
    assert metrics["steps"] == 12
    assert metrics["tokens"] == 7 * 6 * 16 + 5 * 4 * 32
    card = (unbroken / "README.md").read_text()
    assert f"--corpus {pretraining_corpus}" in card
    assert f"{metrics['figures']['held_out']['mlm_loss']:.4f} nats" in card
    figures = evaluate_run(unbroken, pretraining_corpus, rows=32, device="cpu")
    assert figures["held_out"] == pytest.approx(metrics["figures"]["held_out"], rel=1e-5)


def test_curves_show_the_sentence_order_without_its_weight(
    settings: Callable[..., PretrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(module, "draw_pretraining_curves", lambda path, log, **_: drawn.extend(log))
    overlap = ("divergence=0.0", "phases.0.overlap=3", "phases.0.overlap_steps=9")
    result = pretrain(settings("run", "sentence_order_weight=4", "phases.1.sentence_order_weight=2", *overlap))
    assert result is not None
    logged = read_log(result.folder)
    assert len(drawn) == len(logged)
    for shown, line in zip(drawn, logged, strict=True):
        if "loss" in line:
            assert line["loss"] == pytest.approx(line["mlm_loss"] + line["sentence_order_loss"])
            weight = (4, 2)[line["phase"]]
            assert shown == {**line, "sentence_order_loss": line["sentence_order_loss"] / weight}
            assert 0.2 < shown["sentence_order_loss"] < 2
        else:
            # Held-out scores have no weights.
            assert shown == line
            scores = line["evaluation"]["held_out"]
            assert scores["loss"] == pytest.approx(scores["mlm_loss"] + scores["sentence_order_loss"])
    card = (result.folder / "README.md").read_text()
    assert "In phase 1 a pair's passages overlapped by up to 3 tokens at first" in card
    assert "In phase 2 the sentence order weighed 2 times the masked tokens." in card


def test_learning_rate_warms_up_anew_in_every_phase(unbroken: Path) -> None:
    rates = [line["learning_rate"] for line in read_log(unbroken) if "loss" in line]
    # A tenth of seven steps rounds to one step of warm-up; then a straight line to zero.
    assert rates[:7] == pytest.approx([0.0, *(5e-3 * (1 - done / 6) for done in range(6))])
    # A tenth of five steps rounds to none.
    assert rates[7:] == pytest.approx([2e-3 * (1 - done / 5) for done in range(5)])


def test_words_and_order_are_learned(settings: Callable[..., PretrainSettings]) -> None:
    phase = ("steps=200", "batch_size=32", "length=32", "micro_batch_size=32", "learning_rate=3e-3")
    changes = [f"phases.0.{change}" for change in phase] + ["phases.1.steps=1", "phases.1.learning_rate=1e-6"]
    more = ("dropout=0.0", "evaluate_every=100", "log_every=50", "save_every=1000", "held_out_rows=320")
    result = pretrain(settings("run", *changes, *more))
    assert result is not None
    scored = [line["evaluation"]["held_out"] for line in read_log(result.folder) if "evaluation" in line]
    assert scored[1]["mlm_loss"] < scored[0]["mlm_loss"]
    # A quarter of the tokens are full stops; to guess more, neighbours are to be looked at.
    assert scored[1]["mlm_accuracy"] > 0.3
    assert scored[1]["sentence_order_low"] > 0.5


@pytest.mark.parametrize("dies_at", [2, 6, 7, 9])
def test_resumed_run_equals_the_unbroken_one(
    settings: Callable[..., PretrainSettings], unbroken: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """Killed early in a phase, in the last step before the border, in the first one after it, and later."""
    calls = 0

    class Dying(PretrainingLoss):
        def __call__(self, model: nn.Module, batch: Any) -> torch.Tensor:
            nonlocal calls
            # Phase 1 has two micro-batches a step.
            step = calls // 2 if calls < 14 else 7 + calls - 14
            if step == dies_at:
                raise RuntimeError("killed")
            calls += 1
            return super().__call__(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(module, "PretrainingLoss", Dying)
        with pytest.raises(RuntimeError, match="killed"):
            pretrain(settings())
    pretrain(settings(resume=True))
    assert_same_run(settings().output, unbroken)


def test_a_resumed_run_goes_on_with_overlapping_passages(settings: Callable[..., PretrainSettings]) -> None:
    overlap = ("divergence=0.0", "phases.0.overlap=3", "phases.0.overlap_steps=6")
    pretrain(settings("whole", *overlap))
    pretrain(settings("run", *overlap, max_minutes=1e-9))
    pretrain(settings("run", *overlap, resume=True))
    assert_same_run(settings("run").output, settings("whole").output)


def test_killed_process_is_resumed(tmp_path: Path, unbroken: Path, pretraining_corpus: Path) -> None:
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    command = [sys.executable, "-m", "squeezebert", "pretrain", "--corpus", str(pretraining_corpus)]
    command += ["--recipe", str(recipe), "--size", "tiny", "--device", "cpu", "--output", str(run)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not list((run / "state").glob("step-*")) and process.poll() is None:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert not (run / "metrics.json").exists()
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    assert_same_run(run, unbroken)


def test_time_limit_stops_with_a_state_and_a_model(
    settings: Callable[..., PretrainSettings], unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = pretrain(settings(max_minutes=1e-9))
    assert result is not None
    assert result.metrics is None
    assert "stopped after step 1 of 12" in capsys.readouterr().err
    assert checkpoint.find_head(result.folder) == "pretraining"
    # Two such sessions more, and then the rest.
    pretrain(settings(resume=True, max_minutes=1e-9))
    assert "squeezebert pretrain --resume" in capsys.readouterr().err
    pretrain(settings(resume=True))
    assert_same_run(settings().output, unbroken)
    assert "finished" not in capsys.readouterr().err
    pretrain(settings(resume=True))
    assert "this run is finished" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"phases\.1\.steps was 5 when the run began, and is 6 now"):
        pretrain(settings("run", "phases.1.steps=6", resume=True))


def test_signal_stops_with_a_state(settings: Callable[..., PretrainSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(PretrainingLoss):
        def __call__(self, model: nn.Module, batch: Any) -> torch.Tensor:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(model, batch)

    monkeypatch.setattr(module, "PretrainingLoss", Interrupting)
    with pytest.raises(Interrupted, match="step 1, saved"):
        pretrain(settings("run", "phases.0.micro_batch_size=6"))


def test_resume_refuses_another_recipe_or_corpus(settings: Callable[..., PretrainSettings]) -> None:
    pretrain(settings(max_minutes=1e-9))
    with pytest.raises(InputError, match=r"beta2 was 0\.999 when the run began, and is 0\.98 now"):
        pretrain(settings("run", "beta2=0.98", resume=True))
    with pytest.raises(InputError, match="add --resume"):
        pretrain(settings())


def test_a_corpus_without_held_out_text_is_refused_before_the_run_begins(
    settings: Callable[..., PretrainSettings], tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "x"])
    corpus.mkdir()
    tokenizer.save(corpus)
    with CorpusWriter(corpus, tokenizer.vocab_size) as writer:
        writer.add("train", [5] * 80, [4] * 20)
        writer.finish(vocabulary={"size": tokenizer.vocab_size, "sha256": ""})
    with pytest.raises(InputError, match=r"corpus: holds no held-out text; .* larger --held-out"):
        pretrain(settings(corpus=corpus))
    assert not settings().output.exists()


def test_what_a_killed_process_was_writing_is_removed(settings: Callable[..., PretrainSettings]) -> None:
    result = pretrain(settings(max_minutes=1e-9))
    assert result is not None
    (result.folder / ".new-abc").mkdir()
    (result.folder / ".new-abc" / "model.safetensors").write_bytes(b"half")
    (result.folder / ".curves.png.123.tmp").write_bytes(b"half")
    pretrain(settings(resume=True, max_minutes=1e-9))
    assert not list(result.folder.glob(".*"))


def test_two_runs_in_one_folder(settings: Callable[..., PretrainSettings], tmp_path: Path) -> None:
    with occupy(tmp_path / "run", resume=False), pytest.raises(InputError, match="another run is at work"):
        pretrain(settings())


def test_a_weight_of_the_next_phase_is_no_divergence(settings: Callable[..., PretrainSettings]) -> None:
    assert pretrain(settings("run", "phases.1.sentence_order_weight=100", "divergence=2.0")) is not None


def test_divergence_names_the_last_state(settings: Callable[..., PretrainSettings]) -> None:
    changes = ("phases.0.learning_rate=0.9", "phases.0.steps=50", "clip=0", "divergence=1.0", "save_every=1")
    with pytest.raises(InputError, match=r"step \d+: loss .* diverged.*last good state is .*step-000000"):
        pretrain(settings("run", *changes))


def test_micro_batches_change_nothing(settings: Callable[..., PretrainSettings], unbroken: Path) -> None:
    pretrain(settings("run", "dropout=0.0"))
    pretrain(settings("cut", "dropout=0.0", "phases.0.micro_batch_size=4", "phases.1.micro_batch_size=1"))
    expected, cut = ([x["loss"] for x in read_log(settings(name).output) if "loss" in x] for name in ("run", "cut"))
    assert cut == pytest.approx(expected, abs=1e-5)


def test_checkpointing_gradients_changes_nothing(settings: Callable[..., PretrainSettings], unbroken: Path) -> None:
    pretrain(settings("run", "gradient_checkpointing=true"))
    assert_same_run(settings().output, unbroken)


def test_compiled_run_learns_the_same(
    settings: Callable[..., PretrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_ = nn.Module.compile
    compiled = []

    def trace_only(model: nn.Module) -> None:
        compiled.append(model)
        compile_(model, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", trace_only)
    pretrain(settings("run", "dropout=0.0"))
    assert not compiled
    pretrain(settings("compiled", "dropout=0.0", "compile=true"))
    assert len(compiled) == 1
    expected, ours = (
        [x["loss"] for x in read_log(settings(name).output) if "loss" in x] for name in ("run", "compiled")
    )
    assert ours == pytest.approx(expected, abs=1e-4)


def test_masked_tokens_alone(settings: Callable[..., PretrainSettings], pretraining_corpus: Path) -> None:
    result = pretrain(settings("run", "mlm_only=true"))
    assert result is not None
    assert checkpoint.find_head(result.folder) == "masked_lm"
    assert not any("sentence_order_loss" in line for line in read_log(result.folder))
    assert set(evaluate_run(result.folder, pretraining_corpus, rows=8, device="cpu")["held_out"]) == {
        "loss", "mlm_loss", "mlm_accuracy", "pseudo_perplexity"
    }  # fmt: skip


def test_finetuning_takes_the_run_directly(unbroken: Path, tmp_path: Path) -> None:
    from squeezebert.training.settings import FinetuneSettings

    table = tmp_path / "train.tsv"
    table.write_text("text\tlabel\n" + "".join(f"{'a ' * i}{'c' if i % 2 else 'd'}\t{i % 2}\n" for i in range(20)))
    result = finetune(
        FinetuneSettings(
            model=str(unbroken), train=table, output=tmp_path / "fine", epochs=1, learning_rate=1e-9, device="cpu"
        )
    )
    assert result is not None
    before, after = weights(unbroken), weights(result.folder)
    name = "transformer.encoder.layers.0.attention.query.weight"
    torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)


@pytest.mark.slow
def test_two_processes_learn_the_same_as_one(tmp_path: Path, pretraining_corpus: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    rest = ["-m", "squeezebert", "pretrain", "--corpus", str(pretraining_corpus), "--recipe", str(recipe)]
    rest += ["--size", "tiny", "--device", "cpu", "--set", "dropout=0.0", "phases.0.steps=40", "phases.1.steps=10"]
    rest += ["phases.0.batch_size=7", "evaluate_every=25", "--output"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    losses = []
    for number, start in enumerate(([sys.executable], torchrun)):
        done = subprocess.run(
            [*start, *rest, str(tmp_path / str(number))], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        log = read_log(tmp_path / str(number))
        losses.append([line["loss"] if "loss" in line else line["evaluation"]["held_out"]["loss"] for line in log])
    assert len(losses[0]) == 50 + 3
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_parts_are_stretches_that_cover_a_step() -> None:
    class Rows:
        batch_size = 10
        steps_per_epoch = 1

        def __init__(self) -> None:
            self.asked: list[tuple[int, slice]] = []

        def batch(self, step: int, rows: slice) -> None:
            self.asked.append((step, rows))

    source = Rows()
    batches = PhaseBatches(source, 100, 4)  # type: ignore[arg-type]
    for part in range(4):
        batches.batch(103, batches.examples(103)[part::4])
    assert source.asked == [(3, slice(0, 3)), (3, slice(3, 6)), (3, slice(6, 8)), (3, slice(8, 10))]


def test_no_trial_where_the_processor_has_no_bf16(
    settings: Callable[..., PretrainSettings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_cpu_knows_bf16", lambda: False)
    monkeypatch.setattr(module, "_trial", lambda *args: pytest.fail("tried"))
    pretrain(settings("run", "precision=auto", max_minutes=1e-9))
    assert read_json(settings().output / "settings.json")["settings"]["precision"] == "fp32"
    assert "precision: fp32; oneDNN has no bf16 for this processor" in capsys.readouterr().err


def test_precision_trial_is_kept_when_resuming(
    settings: Callable[..., PretrainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"fp32": 1.0, "bf16": 0.5}
    monkeypatch.setattr(module, "_cpu_knows_bf16", lambda: True)
    monkeypatch.setattr(module, "_trial", lambda model, objective, source, precision: seconds[precision])
    pretrain(settings("run", "precision=auto", max_minutes=1e-9))
    seconds["bf16"] = 2.0
    pretrain(settings("run", "precision=auto", resume=True, max_minutes=1e-9))
    pretrain(settings("slower", "precision=auto", max_minutes=1e-9))
    chosen = [read_json(settings(name).output / "settings.json")["settings"]["precision"] for name in ("run", "slower")]
    assert chosen == ["bf16", "fp32"]


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).distillation is None])
def test_every_recipe_runs(name: str, tmp_path: Path, pretraining_corpus: Path) -> None:
    phases = range(len(load_recipe(name).phases))
    small = ["steps=2", "batch_size=4", "micro_batch_size=2"]
    recipe = load_recipe(name, [f"phases.{phase}.{change}" for phase in phases for change in small])
    output = tmp_path / "run"
    result = pretrain(
        PretrainSettings(corpus=pretraining_corpus, recipe=recipe, size="tiny", output=output, device="cpu")
    )
    assert result is not None
    assert result.metrics is not None
    assert result.metrics["steps"] == 2 * len(phases)


def test_evaluation_refuses_what_cannot_be_scored(
    unbroken: Path, classifier_folder: Path, pretraining_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nowhere: not a corpus folder"):
        evaluate_run(unbroken, tmp_path / "nowhere")
    with pytest.raises(InputError, match="its head is sequence_classification"):
        evaluate_run(classifier_folder, pretraining_corpus)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "x"]).save(corpus)
    with CorpusWriter(corpus, 6) as writer:
        writer.finish(vocabulary={"size": 6, "sha256": ""})
    with pytest.raises(InputError, match="its vocabulary is not that of"):
        evaluate_run(unbroken, corpus)


def test_loss_is_that_of_the_whole_sequence_with_unmasked_labels_left_out(pretraining_corpus: Path) -> None:
    torch.manual_seed(0)
    model = checkpoint.load("tiny", "pretraining", vocab=pretraining_corpus, initializer_range=0.2).model
    vocabulary = Vocabulary.from_tokenizer(Tokenizer.load(pretraining_corpus))
    source = PretrainingSource(
        Corpus.open(pretraining_corpus), vocabulary, length=24, batch_size=8, seed=0, masking=Masking(rate=0.3)
    )
    batch = source.batch(0)
    objective = PretrainingLoss(torch.device("cpu"))
    means = objective(model, batch) / torch.tensor(objective.count(batch))
    labels = np.full(batch.input_ids.size, -100)
    labels[batch.masked_positions] = batch.masked_labels
    output = model(
        torch.from_numpy(batch.input_ids),
        None if batch.attention_mask is None else torch.from_numpy(batch.attention_mask),
        torch.from_numpy(batch.token_type_ids),
        labels=torch.from_numpy(labels).view(batch.input_ids.shape),
        sentence_order_labels=torch.from_numpy(batch.sentence_order_labels),
    )
    torch.testing.assert_close(means.sum(), output.loss)
    weighted = PretrainingLoss(torch.device("cpu"), sentence_order_weight=4.0)
    torch.testing.assert_close(weighted(model, batch), objective(model, batch) * torch.tensor([1.0, 4.0]))


@pytest.mark.parametrize("size", ["small", "base"])
def test_flops_are_those_that_torch_counts(size: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from squeezebert.model.heads import SqueezeBertForPreTraining

    config = SIZES[size]
    # In fp64, which no kernel of a kind that torch cannot count takes.
    model = SqueezeBertForPreTraining(config).double()
    # Of 40 tokens every tenth is masked, so 4 in each of the two rows.
    ids, masked = torch.ones(2, 40, dtype=torch.long), torch.arange(8) * 10
    counter = FlopCounterMode(display=False)
    with counter:
        output = model(ids, masked_positions=masked)
        (output.logits.sum() + output.sentence_order_logits.sum()).backward()
    ours = 2 * training_flops(config, length=40, masking_rate=0.1, mlm_only=False)
    assert ours == pytest.approx(counter.get_total_flops(), rel=1e-3)
