"""Pretraining: a corpus of token shards -> a checkpoint that finetuning takes. Setup, build, fit, for each phase."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch import nn

from squeezebert import checkpoint
from squeezebert.data.masking import Masking, Vocabulary
from squeezebert.data.pretraining import PretrainingBatch, PretrainingSource
from squeezebert.data.shards import MANIFEST, Corpus
from squeezebert.durations import duration
from squeezebert.errors import InputError
from squeezebert.files import read_json, write_json, write_text
from squeezebert.host import keep_freed_memory
from squeezebert.model.config import SIZES, ModelConfig
from squeezebert.model.cost import table, total
from squeezebert.tokenizer import Tokenizer
from squeezebert.training import grouping
from squeezebert.training.embedding_stage import FOLDER
from squeezebert.training.encoder_distillation import require_same_vocabulary
from squeezebert.training.general_distillation import (
    GeneralDistillation,
    distillation_card,
    draw_distillation_curves,
)
from squeezebert.training.held_out import score_held_out
from squeezebert.training.loop import Interrupted, LoopSettings, Objective, fit, make_accelerator
from squeezebert.training.losses import to_device
from squeezebert.training.optimizer import build_optimizer
from squeezebert.training.pretraining_loss import PretrainingLoss
from squeezebert.training.pretraining_report import draw_pretraining_curves, pretraining_card
from squeezebert.training.progress import Figures, describe_figures, read_log, say
from squeezebert.training.recipes import DistillationRecipe, PhaseRecipe, Recipe
from squeezebert.training.run_folder import METRICS, SETTINGS, begin, check_space, occupy, remove_leftovers
from squeezebert.training.schedule import Schedule
from squeezebert.training.settings import Device
from squeezebert.training.speed import Peak, peak_flops, training_flops
from squeezebert.training.state import Evaluation, Progress, latest_state
from squeezebert.training.teacher import hash_files

_HELD_OUT_SEED = 0
_HELD_OUT_BATCH = 32
_CALIBRATION_ROWS = 64
_FASTER = 1.05  # a trial in bf16 has to beat fp32 by this factor: bf16 is less exact


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """A recipe, and what it is applied to.

    Raises:
        InputError: The size is unknown, the model cannot be read, or either is too short for the recipe.
    """

    corpus: Path
    """Folder that ``squeezebert corpus build`` wrote."""
    recipe: Recipe
    """How to train."""
    size: str | None = None
    """A key of :data:`squeezebert.model.config.SIZES`, for random weights."""
    model: str | None = None
    """Checkpoint to go on from, a folder, hub id or name of a model in the package, instead of random weights."""
    output: Path
    """Folder for the checkpoint and everything about the run."""
    max_minutes: float = math.inf
    """Minutes after which the run stops with a saved state."""
    resume: bool = False
    """Go on with the run in ``output``, under the same settings."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    teacher: str | None = None
    """Encoder to learn from, a folder or hub id; masked tokens and sentence order only as the recipe weighs them."""
    command: tuple[str, ...] = ()
    """Words of the command line that began the run, without ``--resume``; to be told how to go on."""

    def __post_init__(self) -> None:
        if (self.size is None) == (self.model is None):
            raise InputError("give either a size, for random weights, or a model to go on from; not both")
        if self.size is not None and self.size not in SIZES:
            raise InputError(f"size {self.size!r} is unknown; use one of {', '.join(SIZES)}")
        if self.model is not None and checkpoint.is_size(self.model):
            raise InputError(f"{self.model}: a size name stands for random weights; name it with --size")
        if self.teacher is None and self.recipe.distillation is not None:
            raise InputError("recipe: distillation needs a teacher; name one with --teacher")
        if self.teacher is not None and self.recipe.distillation is None:
            recipe = dataclasses.replace(self.recipe, distillation=DistillationRecipe())
            object.__setattr__(self, "recipe", recipe)
        if not self.max_minutes > 0:
            raise InputError(f"max_minutes must be above 0, not {self.max_minutes}")
        longest = self.read_config().max_position_embeddings
        for index, phase in enumerate(self.recipe.phases):
            if phase.length > longest:
                raise InputError(
                    f"recipe: phases.{index}.length {phase.length} is more than the {longest} tokens that "
                    f"{self.start} takes"
                )

    @property
    def start(self) -> str:
        """For people: the size, or the model."""
        return str(self.size or self.model)

    def read_config(self) -> ModelConfig:
        """Sizes of what is trained."""
        if self.size is not None:
            return SIZES[self.size]
        return checkpoint.read_config(checkpoint.resolve(str(self.model)))


@dataclass(frozen=True)
class PretrainResult:
    """A run, finished or stopped in time."""

    folder: Path
    """Holds the checkpoint."""
    metrics: dict[str, Any] | None
    """The content of ``metrics.json``; None: the time was up first."""

    def describe(self) -> str:
        """For people: the figures, and where the model is."""
        if self.metrics is None:
            return f"model so far: {self.folder}"
        return f"{describe_figures(self.metrics['figures'])}\nmodel: {self.folder}"


class PhaseBatches:
    """One phase's batches for the loop, which counts its steps from the beginning of the run.

    The loop deals out every ``parts``-th example. The rows are listed so that each part is a stretch of neighbours in
    length.

    Args:
        source: The phase's rows.
        first_step: Step of the run at which the phase begins.
        parts: Micro-batches of a step, over all processes.
    """

    def __init__(self, source: PretrainingSource, first_step: int, parts: int) -> None:
        self._source = source
        self._first_step = first_step
        self._rows = np.empty(source.batch_size, dtype=np.int64)
        for part, stretch in enumerate(np.array_split(np.arange(source.batch_size), parts)):
            self._rows[part::parts] = stretch
        self.steps_per_epoch = source.steps_per_epoch

    def examples(self, step: int) -> NDArray[np.int64]:
        """Rows of a step."""
        return self._rows

    def batch(self, step: int, examples: NDArray[np.int64]) -> PretrainingBatch:
        """One part of a step."""
        return self._source.batch(step - self._first_step, slice(int(examples[0]), int(examples[-1]) + 1))


class _Gauge:
    """What a run costs: utilisation, time left, time of the whole recipe."""

    def __init__(self, recipe: Recipe, config: ModelConfig, peak: Peak, processes: int) -> None:
        self._recipe = recipe
        self._peak = peak.flops * processes
        # A teacher's own operations do not count.
        rate = 0.0 if recipe.predicts == "encoder" else recipe.masking_rate
        self.row_flops = [
            training_flops(config, length=phase.length, masking_rate=rate, mlm_only=recipe.predicts != "pretraining")
            for phase in recipe.phases
        ]
        self._rate = 0.0

    @property
    def total(self) -> float:
        """FLOP of the whole recipe."""
        return sum(
            phase.steps * phase.batch_size * row for phase, row in zip(self._recipe.phases, self.row_flops, strict=True)
        )

    def done(self, step: int) -> tuple[int, float]:
        """Tokens and FLOP of the first ``step`` steps."""
        tokens, flops = 0, 0.0
        for phase, row in zip(self._recipe.phases, self.row_flops, strict=True):
            taken = min(step, phase.steps)
            tokens += taken * phase.batch_size * phase.length
            flops += taken * phase.batch_size * row
            step -= taken
        return tokens, flops

    def read(self, index: int, step: int, figures: Mapping[str, float]) -> dict[str, float]:
        """Figures of speed and cost after ``step`` steps, within phase ``index``."""
        phase, row = self._recipe.phases[index], self.row_flops[index]
        rate = figures["examples_per_second"] * row
        # One look in ten or so counts: the time left should not jump about.
        self._rate = rate if not self._rate else 0.9 * self._rate + 0.1 * rate
        tokens, flops = self.done(step)
        return {
            "phase": index,
            "length": phase.length,
            "tokens_seen": tokens,
            "model_flop_utilisation": figures["tokens_per_second"] * row / phase.length / self._peak,
            "seconds_left": (self.total - flops) / self._rate,
            "projected_hours": self.total / self._rate / 3600,
        }


def pretrain(settings: PretrainSettings) -> PretrainResult | None:
    """Pretrain a model from random weights; the checkpoint is left in ``settings.output``.

    Returns:
        The figures; None in other processes than the first.

    Raises:
        InputError: Something about settings or corpus is wrong; or the loss is not finite, or diverged.
        KeyboardInterrupt: SIGINT or SIGTERM came; the state is saved.
        OSError: The output folder cannot be written, or the disk is full; states saved before are intact.
    """
    start = time.monotonic()
    keep_freed_memory()
    output = settings.output
    accelerator = make_accelerator(settings.device)
    with occupy(output, resume=settings.resume, write=accelerator.is_main_process) as finished:
        accelerator.wait_for_everyone()
        return _run(accelerator, settings, start, finished=finished)


def _run(
    accelerator: Accelerator, settings: PretrainSettings, start: float, *, finished: bool
) -> PretrainResult | None:
    """Go through the whole run, or what is left of it; its time counts from ``start``."""
    recipe, output = settings.recipe, settings.output
    corpus, held_out = Corpus.open(settings.corpus, "train"), Corpus.open(settings.corpus, "held_out")
    tokenizer = Tokenizer.load(settings.corpus)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    model = _build_model(settings, tokenizer)
    config: ModelConfig = model.config  # type: ignore[assignment]
    if not (output / SETTINGS).exists():
        check_space(output, model, models=2, states=recipe.keep)
    model.to(accelerator.device)
    sources = [_source(corpus, vocabulary, recipe, index) for index in range(len(recipe.phases))]
    order = None
    if recipe.groups:
        order = _order(settings, model, sources[0], accelerator)
        grouping.apply_order(model, order)
        grouping.open_groups(model, recipe.groups)
        config = grouping.grouped_config(config, recipe.groups)
    known_order = order or (grouping.order_of_checkpoint(settings.model) if settings.model is not None else None)
    distillation = None
    trained: nn.Module = model
    objective: Objective[PretrainingBatch] = PretrainingLoss(
        accelerator.device, mlm_only=recipe.mlm_only, sentence_order_weight=recipe.order_weight(0)
    )
    fingerprint = {"corpus": _fingerprint(settings.corpus)}
    if settings.model is not None:
        fingerprint["model"] = hash_files(checkpoint.resolve(settings.model))
    if settings.teacher is not None:
        distillation = GeneralDistillation(settings.teacher, recipe, model, tokenizer, accelerator.device, known_order)
        trained, objective = distillation.student, distillation.loss
        fingerprint["teacher"] = distillation.fingerprint
    held_out_sources = [
        held_out_source(held_out, vocabulary, length=phase.length, masking=recipe.masking(), mlm_only=recipe.mlm_only)
        for phase in recipe.phases
    ]
    if distillation is not None and not finished:
        rows = slice(0, min(_CALIBRATION_ROWS, sources[0].batch_size))
        distillation.loss.calibrate(sources[0].batch(0, rows))
    precision = _precision(settings, accelerator, trained, objective, sources[0])
    decisive = {**recipe.to_dict(), "size": settings.size, "precision": precision}
    begin(output, decisive, fingerprint, write=accelerator.is_main_process)
    if known_order is not None and accelerator.is_main_process:
        grouping.keep_order(output, known_order)
    if finished:
        say(f"{output}: this run is finished")
        return PretrainResult(output, read_json(output / METRICS)) if accelerator.is_main_process else None
    if accelerator.is_main_process:
        remove_leftovers(output)
    peak = peak_flops(accelerator.device, precision)
    gauge = _Gauge(recipe, config, peak, accelerator.num_processes)
    if accelerator.is_main_process:
        _announce(settings, config, corpus, gauge, peak, precision)
        if order is not None:
            say(f"model: {order.describe()}")
    accelerator.wait_for_everyone()
    if recipe.compile:
        trained.compile()

    optimizer = _optimizer(trained, recipe)
    schedule = Schedule([phase.schedule() for phase in recipe.phases])

    def save_model(evaluation: Evaluation | None = None) -> None:
        about: dict[str, Any] = {"pretraining": {"start": settings.start, "mlm_only": recipe.mlm_only}}
        if settings.teacher is not None:
            about["pretraining"] = {"start": settings.start, "teacher": settings.teacher}
        if evaluation is not None:
            about["pretraining"] |= {"step": evaluation.step, "figures": evaluation.figures["held_out"]}
        checkpoint.save(grouping.closed(model), output, tokenizer=tokenizer, extra=about)

    def close(step: int) -> None:
        grouping.set_openness(model, grouping.openness_at(step, recipe.closing * recipe.steps))

    progress = Progress()
    first_step = 0
    deadline = start + 60 * settings.max_minutes
    begun = distillation is None or _saved_step(output) > 0
    try:
        if distillation is not None and not begun:
            begun = distillation.train_embedding(accelerator, output, deadline)
        for index, (phase, source) in enumerate(zip(recipe.phases, sources, strict=True)):
            if not begun:
                break
            last_step = first_step + phase.steps
            if _saved_step(output) >= last_step and index + 1 < len(recipe.phases):
                first_step = last_step
                continue
            accumulation = _accumulation(phase, accelerator.num_processes)
            if distillation is None:
                objective = PretrainingLoss(
                    accelerator.device, mlm_only=recipe.mlm_only, sentence_order_weight=recipe.order_weight(index)
                )

            def evaluate(rows: PretrainingSource = held_out_sources[index]) -> tuple[float, Figures]:
                figures: Figures = {"held_out": {}}
                count = recipe.held_out_rows
                with grouping.fully_closed(model):
                    if recipe.predicts == "pretraining" or distillation is None:
                        figures = score_held_out(model, rows, accelerator, rows=count, precision=precision)
                    if distillation is not None:
                        figures["held_out"] |= distillation.score(rows, accelerator, precision)["held_out"]
                return -figures["held_out"]["loss"], figures

            progress = fit(
                accelerator=accelerator,
                model=trained,
                optimizer=optimizer,
                learning_rate_at=schedule.learning_rate_at,
                source=PhaseBatches(source, first_step, accumulation * accelerator.num_processes),
                objective=objective,
                evaluate=evaluate,
                keep_best=save_model,
                settings=LoopSettings(
                    total_steps=last_step,
                    evaluate_every=recipe.evaluate_every,
                    save_every=recipe.save_every,
                    seed=recipe.seed,
                    clip=recipe.clip,
                    accumulation=accumulation,
                    precision=precision,
                    log_every=recipe.log_every,
                    keep=recipe.keep,
                    divergence=recipe.divergence,
                    # The other term's weight may change from phase to phase.
                    watch="mlm_loss" if recipe.predicts == "pretraining" else "loss",
                    deadline=deadline,
                ),
                folder=output,
                title=f"phase {index + 1}/{len(recipe.phases)}  length {phase.length}",
                gauge=lambda step, figures, index=index: gauge.read(index, step, figures),  # type: ignore[misc]
                prepare=None if order is None else close,
            )
            # accelerate holds on to every model it has seen.
            accelerator.free_memory()
            first_step = last_step
            if progress.step < last_step:
                break
    except Interrupted as interruption:
        if accelerator.is_main_process:
            say(f"{interruption}; go on with: {_command(settings)}")
        raise
    if not accelerator.is_main_process:
        return None
    if progress.step < recipe.steps:
        save_model()
        _draw(settings, recipe)
        say(
            f"{settings.max_minutes:g} min are over, stopped after step {progress.step:,} of {recipe.steps:,} with its "
            f"state saved; go on with: {_command(settings)}"
        )
        return PretrainResult(output, None)
    save_model(progress.evaluations[-1])
    return _finish(settings, corpus, config, gauge, peak, precision, progress, accelerator)


def evaluate_run(folder: Path, corpus: Path, *, rows: int | None = None, device: Device = "auto") -> Figures:
    """Score a pretrained checkpoint on the held-out text of a corpus.

    Args:
        folder: What :func:`pretrain` wrote.
        corpus: What ``squeezebert corpus build`` wrote, with the checkpoint's own vocabulary.
        rows: Rows to score; None: all there are.
        device: Where to compute.

    Raises:
        InputError: The folder holds no pretrained model, or the vocabularies differ.
    """
    keep_freed_memory()
    accelerator = make_accelerator(device)
    held_out = Corpus.open(corpus, "held_out")
    head = checkpoint.find_head(folder)
    if head not in ("pretraining", "masked_lm"):
        raise InputError(f"{folder}: its head is {head}; give a pretraining run, or another masked language model")
    loaded = checkpoint.load(folder, head)
    tokenizer = Tokenizer.load(corpus)
    if loaded.tokenizer is not None and _tokens(loaded.tokenizer) != _tokens(tokenizer):
        raise InputError(f"{corpus}: its vocabulary is not that of {folder}; build the corpus with --vocab {folder}")
    stored = read_json(folder / SETTINGS)["settings"] if (folder / SETTINGS).exists() else {}
    masking = Masking(
        rate=stored.get("masking_rate", 0.15),
        whole_word=stored.get("whole_word", False),
        max_ngram=stored.get("max_ngram", 1),
    )
    length = stored["phases"][-1]["length"] if stored else 128
    source = held_out_source(
        held_out, Vocabulary.from_tokenizer(tokenizer), length=length, masking=masking, mlm_only=head == "masked_lm"
    )
    model = loaded.model.to(accelerator.device)
    every = source.steps_per_epoch * source.batch_size
    return score_held_out(model, source, accelerator, rows=rows or every, precision=stored.get("precision", "fp32"))


def held_out_source(
    corpus: Corpus, vocabulary: Vocabulary, *, length: int, masking: Masking, mlm_only: bool
) -> PretrainingSource:
    """Rows to be scored: the same ones, with the same masks, whatever the seed of the run."""
    if not corpus.n_documents:
        raise InputError(
            f"{corpus.folder}: holds no held-out text; build it from more documents, or with a larger --held-out"
        )
    return PretrainingSource(
        corpus, vocabulary, length=length, batch_size=_HELD_OUT_BATCH, seed=_HELD_OUT_SEED, masking=masking,
        mlm_only=mlm_only, short_probability=0.0,
    )  # fmt: skip


def _build_model(settings: PretrainSettings, tokenizer: Tokenizer) -> nn.Module:
    """The model, with the heads that are trained; random weights follow the seed."""
    recipe = settings.recipe
    torch.manual_seed(recipe.seed)
    dropout: dict[str, Any] = {"hidden_dropout_prob": recipe.dropout, "attention_probs_dropout_prob": recipe.dropout}
    if settings.size is not None:
        model = checkpoint.load(settings.size, recipe.predicts, vocab=settings.corpus, **dropout).model
    else:
        source = str(settings.model)
        loaded = checkpoint.load(source, recipe.predicts, require_head=False, **dropout)
        require_same_vocabulary(
            source, loaded.tokenizer, tokenizer, "the corpus's", f"build the corpus with --vocab {source}"
        )
        model = loaded.model
    encoder = model if recipe.predicts == "encoder" else model.transformer
    encoder.gradient_checkpointing = recipe.gradient_checkpointing  # type: ignore[union-attr]
    return model


def _order(
    settings: PretrainSettings, model: nn.Module, source: PretrainingSource, accelerator: Accelerator
) -> grouping.Order:
    """The order in which a dense model's channels suit groups, by what it makes of the first rows."""

    def read() -> None:
        batch = source.batch(0, slice(0, min(_CALIBRATION_ROWS, source.batch_size)))
        # A model without heads reads the text as it was written. The few places of padding are counted.
        ids = batch.written_ids() if settings.recipe.predicts == "encoder" else batch.input_ids
        arrays = (ids, batch.attention_mask, batch.token_type_ids)
        model(*(None if each is None else to_device(each, accelerator.device) for each in arrays))

    return grouping.order_of_run(accelerator, settings.output, model, settings.recipe.groups, settings.start, read)


def _source(corpus: Corpus, vocabulary: Vocabulary, recipe: Recipe, index: int) -> PretrainingSource:
    """The rows of a phase; each phase has chances of its own."""
    phase = recipe.phases[index]
    return PretrainingSource(
        corpus,
        vocabulary,
        length=phase.length,
        batch_size=phase.batch_size,
        seed=int(np.random.SeedSequence([recipe.seed, index]).generate_state(1)[0]),
        masking=recipe.masking(),
        mlm_only=recipe.mlm_only,
        short_probability=recipe.short_probability,
        both_orders=recipe.both_orders,
        overlap=phase.overlap,
        overlap_steps=phase.overlap_steps,
    )


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    return build_optimizer(
        model,
        name=recipe.optimizer,
        learning_rate=recipe.phases[0].learning_rate,
        weight_decay=recipe.weight_decay,
        betas=(0.9, recipe.beta2),
        bias_correction=recipe.bias_correction,
        adapt_undecayed=recipe.adapt_undecayed,
    )


def _accumulation(phase: PhaseRecipe, processes: int) -> int:
    """Micro-batches of a process's share of a step."""
    share = -(-phase.batch_size // processes)
    return -(-share // phase.micro_batch_size)


def _precision(
    settings: PretrainSettings,
    accelerator: Accelerator,
    model: nn.Module,
    objective: Objective[PretrainingBatch],
    source: PretrainingSource,
) -> Any:
    """The number format of the run; once it has begun, that it began with."""
    if settings.recipe.precision != "auto":
        return settings.recipe.precision
    if (settings.output / SETTINGS).exists():
        return read_json(settings.output / SETTINGS)["settings"]["precision"]
    if accelerator.device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    chosen = "fp32"
    if _cpu_knows_bf16():
        say("precision: a trial of fp32 and bf16, some seconds")
        seconds = {precision: _trial(model, objective, source, precision) for precision in ("fp32", "bf16")}
        if seconds["fp32"] > _FASTER * seconds["bf16"]:
            chosen = "bf16"
        say(f"precision: {chosen}; the trial took {', '.join(f'{s:.2f} s in {name}' for name, s in seconds.items())}")
    else:
        say("precision: fp32; oneDNN has no bf16 for this processor")
    # All processes do as the first one says.
    return broadcast_object_list([chosen])[0]


def _cpu_knows_bf16() -> bool:
    """Whether oneDNN computes in bf16 here (AVX-512, ARM's BF16); elsewhere torch emulates it, many times slower."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _trial(
    model: nn.Module, objective: Objective[PretrainingBatch], source: PretrainingSource, precision: str
) -> float:
    """Seconds of a forward and backward pass over some rows."""
    batch = source.batch(0, slice(0, min(16, source.batch_size)))
    times = []
    for _ in range(4):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            objective(model, batch).sum().backward()  # type: ignore[no-untyped-call]
        times.append(time.perf_counter() - start)
    model.zero_grad()
    return min(times)


def _announce(
    settings: PretrainSettings, config: ModelConfig, corpus: Corpus, gauge: _Gauge, peak: Peak, precision: str
) -> None:
    recipe = settings.recipe
    parameters = total(table(config, head=recipe.predicts)).parameters
    ends = list(accumulate(phase.steps for phase in recipe.phases))
    origin = "its own weights" if settings.size is None else f"random weights from seed {recipe.seed}"
    say(f"model: {settings.start}, {parameters / 1e6:.1f} M parameters, {origin}")
    if settings.teacher is not None:
        say(f"teacher: {settings.teacher}")
    say(f"corpus: {settings.corpus}, {corpus.n_tokens:,} tokens in {corpus.n_documents:,} documents")
    say(
        f"recipe: {ends[-1]:,} steps, {recipe.tokens / 1e6:,.1f} M tokens ({recipe.tokens / corpus.n_tokens:.2f} times "
        f"the corpus), {gauge.total:.2e} FLOP in {precision}"
    )
    say(f"peak: {peak.flops / 1e12:.2f} TFLOP/s a device, {peak.origin}")


def _finish(
    settings: PretrainSettings,
    corpus: Corpus,
    config: ModelConfig,
    gauge: _Gauge,
    peak: Peak,
    precision: str,
    progress: Progress,
    accelerator: Accelerator,
) -> PretrainResult:
    """Draw the curves, write the card and the figures, and remove the states."""
    output, recipe = settings.output, settings.recipe
    last = progress.evaluations[-1]
    tokens, flops = gauge.done(progress.step)
    metrics = {
        "start": settings.start if settings.size is None else f"random weights of size {settings.size}",
        "steps": progress.step,
        "tokens": tokens,
        "flops": flops,
        "figures": last.figures,
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(tokens / progress.seconds, 1),
        "model_flop_utilisation": flops / progress.seconds / (peak.flops * accelerator.num_processes),
        "peak_flops": peak.flops,
        "peak_origin": peak.origin,
        "precision": precision,
        "processes": accelerator.num_processes,
        "device": str(accelerator.device),
    }
    _draw(settings, recipe)
    command = shlex.join(settings.command)
    if settings.teacher is None:
        card = pretraining_card(recipe=recipe, config=config, corpus=corpus, metrics=metrics, command=command)
    else:
        sources = [str(each.get("name", each)) for each in corpus.manifest.inputs]
        card = distillation_card(
            recipe=recipe, teacher=settings.teacher, sources=sources, metrics=metrics, command=command
        )
    write_text(output / "README.md", card)
    # This file says that the run is finished, so it comes last.
    write_json(output / METRICS, metrics)
    shutil.rmtree(output / "state")
    shutil.rmtree(output / FOLDER / "state", ignore_errors=True)
    speed = f"{duration(progress.seconds)} of training, {metrics['tokens_per_second']:,.0f} tokens/s"
    say(f"{speed}; curves and model card in {output}")
    return PretrainResult(output, metrics)


def _draw(settings: PretrainSettings, recipe: Recipe) -> None:
    log = read_log(settings.output)
    if any("loss" in line for line in log):
        borders = list(accumulate(phase.steps for phase in recipe.phases))[:-1]
        title = Path(settings.start).name  # where it lies is nobody's concern who sees the picture
        # Logged as they enter the loss, with their weights.
        weights = recipe.distillation
        if weights is not None:
            draw_distillation_curves(settings.output / "curves.png", log, title=title)
        if weights is None or recipe.predicts == "pretraining":
            own = [
                {"sentence_order_loss": recipe.order_weight(index)}
                if weights is None
                else {"mlm_loss": weights.mlm, "sentence_order_loss": weights.sentence_order}
                for index in range(len(recipe.phases))
            ]
            log = [{name: value / own[line["phase"]][name] if name in own[line.get("phase", 0)] else value
                    for name, value in line.items()} for line in log]  # fmt: skip
            path = settings.output / ("curves.png" if weights is None else "pretraining_curves.png")
            draw_pretraining_curves(path, log, title=title, borders=borders)


def _saved_step(output: Path) -> int:
    """Step of the newest state, 0 where there is none."""
    saved = latest_state(output / "state")
    return 0 if saved is None else int(saved.name.removeprefix("step-"))


def _fingerprint(corpus: Path) -> str:
    """Hash of the manifest, which holds the hashes of every file."""
    return hashlib.sha256((corpus / MANIFEST).read_bytes()).hexdigest()


def _tokens(tokenizer: Tokenizer) -> list[str | None]:
    return [tokenizer.id_to_token(index) for index in range(tokenizer.vocab_size)]


def _command(settings: PretrainSettings) -> str:
    return shlex.join([*settings.command, "--resume"])
