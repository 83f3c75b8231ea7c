"""Finetuning: a pretrained encoder and labelled examples -> a classifier. Setup, build, fit, for each seed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from squeezebert import checkpoint
from squeezebert.data.collate import Batch, sorted_batches
from squeezebert.data.label_names import find_places
from squeezebert.data.tasks import Task
from squeezebert.errors import InputError
from squeezebert.evaluation.metrics import score
from squeezebert.files import atomic_path, read_json, write_json, write_text
from squeezebert.host import keep_freed_memory
from squeezebert.model.config import ModelConfig
from squeezebert.model.heads import sequence_loss
from squeezebert.model.squeezebert import initialize
from squeezebert.tokenizer import Tokenizer
from squeezebert.training import grouping
from squeezebert.training.batches import EncodedExamples, EpochBatches
from squeezebert.training.card import model_card
from squeezebert.training.curves import draw_curves
from squeezebert.training.distillation import read_distillation
from squeezebert.training.labelled import LabelledData, read_labelled_data
from squeezebert.training.loop import Interrupted, LoopSettings, Objective, fit, make_accelerator
from squeezebert.training.losses import ClassificationLoss, forward, unwrapped
from squeezebert.training.optimizer import build_optimizer
from squeezebert.training.progress import Figures, read_log, say
from squeezebert.training.run_folder import METRICS, SETTINGS, begin, check_space, occupy, remove_leftovers
from squeezebert.training.schedule import Phase
from squeezebert.training.settings import FinetuneSettings
from squeezebert.training.state import Evaluation
from squeezebert.training.teacher import hash_files

PREDICTIONS = "dev_predictions.jsonl"

_EVALUATION_BATCH = 64
_ORDER_EXAMPLES = 512  # enough for mean squares
# Settings that name files; what is in the files is compared instead when a run is resumed.
_PATHS = ("data_dir", "train", "dev", "vocab", "teacher", "unlabelled")


@dataclass(frozen=True)
class FinetuneResult:
    """A finished run."""

    folder: Path
    """Holds the model of the best seed."""
    metrics: dict[str, Any]
    """The content of ``metrics.json``: ``seeds`` (figures of each), ``mean`` and ``sd`` over them, ``best_seed``."""

    def describe(self) -> str:
        """For people: the figures, and where the model is."""
        lines = [
            f"seed {each['seed']}: {split} "
            + " ".join(f"{name} {value:.4f}" for name, value in figures.items())
            + f" (epoch {each['epoch']:g})"
            for each in self.metrics["seeds"]
            for split, figures in each["figures"].items()
        ]
        deviations = self.metrics["sd"]
        if deviations is not None:
            lines += [
                f"mean of {len(self.metrics['seeds'])} seeds: {split} "
                + " ".join(
                    f"{name} {value:.4f} ± {self.metrics['sd'][split][name]:.4f}" for name, value in means.items()
                )
                for split, means in self.metrics["mean"].items()
            ]
        return "\n".join([*lines, f"model: {self.folder} (seed {self.metrics['best_seed']})"])


def finetune(settings: FinetuneSettings, data: LabelledData | None = None) -> FinetuneResult | None:
    """Finetune a model, once for each seed; the best one is left in ``settings.output``.

    Args:
        settings: How, from what and whereto.
        data: Examples in memory, in place of the files that the settings name.

    Returns:
        The figures; None in other processes than the first.

    Raises:
        InputError: Something about settings, data or model is wrong; or the loss is no longer finite.
        KeyboardInterrupt: SIGINT or SIGTERM came; the state is saved.
        OSError: The output folder cannot be written, or the disk is full; states saved before are intact.
    """
    keep_freed_memory()
    accelerator = make_accelerator(settings.device)
    with occupy(settings.output, resume=settings.resume, write=accelerator.is_main_process) as finished:
        accelerator.wait_for_everyone()
        return _run(accelerator, settings, data or read_labelled_data(settings), finished=finished)


def _run(
    accelerator: Accelerator, settings: FinetuneSettings, data: LabelledData, *, finished: bool
) -> FinetuneResult | None:
    """Go through the whole run, or what is left of it."""
    output, task = settings.output, data.task
    distillation = read_distillation(settings, task) if settings.teacher else None
    texts = data.train
    if distillation is not None:
        data = dataclasses.replace(data, notes=(*data.notes, *distillation.notes))
        texts = [*texts, *distillation.unlabelled]
    tokenizer = _tokenizer(settings, data)
    loaded, start = _load(settings, task, tokenizer, settings.seeds[0])
    if not (output / SETTINGS).exists():
        check_space(output, loaded.model, models=len(settings.seeds) + 1)
    longest = loaded.config.max_position_embeddings
    max_length = settings.max_length or longest
    if max_length > longest:
        raise InputError(
            f"settings: max_length {max_length} is more than the {longest} tokens that {settings.model} takes"
        )
    train = EncodedExamples(texts, tokenizer, max_length)
    dev = {name: EncodedExamples(examples, tokenizer, max_length) for name, examples in data.dev.items()}
    decisive = {name: value for name, value in settings.to_dict().items() if name not in _PATHS}
    decisive |= {"kind": task.kind, "labels": list(task.labels), "pair": task.pair}
    # Each process draws dropout masks of its own.
    decisive["num_processes"] = accelerator.num_processes
    fingerprints = {name: examples.fingerprint() for name, examples in {"train": train, **dev}.items()}
    if not checkpoint.is_size(settings.model):
        fingerprints["model"] = hash_files(checkpoint.resolve(settings.model))
    if distillation is not None:
        fingerprints["teacher"] = distillation.fingerprint()
    # Of a resumed run all must agree before anything is computed.
    begin(output, decisive, fingerprints, write=False)
    if finished:
        say(f"{output}: this run is finished")
        return FinetuneResult(output, read_json(output / METRICS)) if accelerator.is_main_process else None
    if accelerator.is_main_process:
        remove_leftovers(output)
        for line in [*(f"{task.name}: {note}" for note in data.notes), f"model: {start}"]:
            say(line)
        if train.truncated:
            say(f"{train.truncated:,} of {len(train):,} training texts reach {max_length} tokens and are cut")
    accelerator.wait_for_everyone()
    objective: Objective[Batch] = ClassificationLoss(accelerator.device)
    order = _order(settings, loaded.model, train, accelerator) if settings.groups else None
    if order is not None:
        start += f"; {order.describe()}"
        if accelerator.is_main_process:
            say(f"model: {order.describe()}")
    known_order = order or grouping.order_of_checkpoint(settings.model)
    if distillation is not None:
        objective = distillation.loss(settings, texts, train, loaded.config, tokenizer, accelerator.device, known_order)
    # Not before the teachers have answered: the mistake in one that cannot may be mended, and this command repeated.
    begin(output, decisive, fingerprints, write=accelerator.is_main_process)
    if known_order is not None and accelerator.is_main_process:
        grouping.keep_order(output, known_order)

    try:
        for seed in settings.seeds:
            if not (_folder(settings, seed) / METRICS).exists():
                _train_seed(accelerator, settings, task, tokenizer, train, dev, objective, order, seed)
    except Interrupted as interruption:
        if accelerator.is_main_process:
            how = "--resume" if settings.task or settings.train else "resume=True"
            say(f"{interruption}; go on by adding {how} to: {settings.command()}")
        raise
    if not accelerator.is_main_process:
        return None
    return _finish(settings, data, start, max_length, str(accelerator.device))


def _train_seed(
    accelerator: Accelerator,
    settings: FinetuneSettings,
    task: Task,
    tokenizer: Tokenizer,
    train: EncodedExamples,
    dev: Mapping[str, EncodedExamples],
    objective: Objective[Batch],
    order: grouping.Order | None,
    seed: int,
) -> None:
    """Build and fit the model of one seed; its folder then holds the best model and its figures."""
    folder = _folder(settings, seed)
    model = _load(settings, task, tokenizer, seed)[0].model
    if order is not None:
        grouping.apply_order(model, order)
        grouping.open_groups(model, settings.groups)
    model.to(accelerator.device)
    optimizer = build_optimizer(model, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    batches = EpochBatches(train, settings.batch_size, seed)
    phase = Phase(
        steps=settings.epochs * batches.steps_per_epoch,
        learning_rate=settings.learning_rate,
        warmup_proportion=settings.warmup_proportion,
        power=settings.power,
    )
    logits: dict[str, NDArray[np.float32]] = {}

    def evaluate() -> tuple[float, Figures]:
        figures = {}
        with grouping.fully_closed(model):
            for name, examples in dev.items():
                logits[name] = predict(model, examples, accelerator)
                loss = mean_loss(logits[name], examples, unwrapped(model).config)
                figures[name] = {**score(task, logits[name], examples.labels or []), "loss": loss}
        return next(iter(figures.values()))[task.primary_metric], figures

    def keep_best(evaluation: Evaluation) -> None:
        about = {"task": task.name, "pair": task.pair, "max_length": train.max_length, "figures": evaluation.figures}
        checkpoint.save(grouping.closed(model), folder / "model", tokenizer=tokenizer, extra=about)
        _write_predictions(folder / PREDICTIONS, logits, dev)

    def close(step: int) -> None:
        grouping.set_openness(model, grouping.openness_at(step, settings.closing * phase.steps))

    progress = fit(
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        learning_rate_at=phase.learning_rate_at,
        source=batches,
        objective=objective,
        evaluate=evaluate,
        keep_best=keep_best,
        settings=LoopSettings(
            total_steps=phase.steps,
            evaluate_every=max(1, round(settings.evaluate_every * batches.steps_per_epoch)),
            save_every=settings.save_every,
            seed=seed,
            clip=settings.clip,
            accumulation=settings.accumulation,
            precision=_precision(settings, accelerator.device),
            patience=settings.patience,
        ),
        folder=folder,
        prepare=None if order is None else close,
        title=f"seed {seed}" if len(settings.seeds) > 1 else task.name,
    )
    # accelerate holds on to every model it has seen.
    accelerator.free_memory()
    best = progress.best
    assert best is not None
    if accelerator.is_main_process:
        figures = {
            "seed": seed,
            "step": best.step,
            "epoch": best.epoch,
            "score": best.score,
            "figures": best.figures,
            "seconds": round(progress.seconds, 1),
            "examples_per_second": round(progress.examples / progress.seconds, 1),
        }
        write_json(folder / METRICS, figures)
        shutil.rmtree(folder / "state")
    accelerator.wait_for_everyone()


def _finish(settings: FinetuneSettings, data: LabelledData, start: str, max_length: int, device: str) -> FinetuneResult:
    """Gather the seeds' figures, and put the best seed's model into the output folder."""
    output = settings.output
    folders = {seed: _folder(settings, seed) for seed in settings.seeds}
    seeds = [read_json(folder / METRICS) for folder in folders.values()]
    best = max(seeds, key=lambda each: each["score"])
    metrics = {
        "task": data.task.name,
        "primary_metric": data.task.primary_metric,
        "best_seed": best["seed"],
        "seeds": seeds,
        "mean": _over_seeds(seeds, statistics.fmean),
        "sd": _over_seeds(seeds, statistics.stdev) if len(seeds) > 1 else None,
    }
    chosen = folders[best["seed"]]
    for file in [*sorted((chosen / "model").iterdir()), chosen / PREDICTIONS]:
        with atomic_path(output / file.name) as temporary:
            shutil.copyfile(file, temporary)
    logs = {f"seed {seed}": read_log(folder) for seed, folder in folders.items()}
    draw_curves(
        output / "curves.png", logs, title=f"{settings.model} on {data.task.name}", metric=data.task.primary_metric
    )
    card = model_card(
        task=data.task,
        notes=data.notes,
        start=start,
        settings=settings.to_dict(),
        command=settings.command(),
        device=device,
        max_length=max_length,
        metrics=metrics,
    )
    write_text(output / "README.md", card)
    # This file says that the run is finished, so it comes last.
    write_json(output / METRICS, metrics)
    if len(seeds) == 1:
        shutil.rmtree(chosen / "model")
    say(f"{sum(each['seconds'] for each in seeds):.0f} s of training; curves and model card in {output}")
    return FinetuneResult(output, metrics)


def predict(model: nn.Module, examples: EncodedExamples, accelerator: Accelerator) -> NDArray[np.float32]:
    """Logits of examples in their order, in fp32, computed by all processes together. *Shape:* ``[n, K]``."""
    rank, processes = accelerator.process_index, accelerator.num_processes
    logits_nK = torch.zeros(len(examples), unwrapped(model).config.num_labels, device=accelerator.device)
    with torch.inference_mode():
        for indices in sorted_batches(examples.lengths, _EVALUATION_BATCH)[rank::processes]:
            output = forward(model, examples.collate(indices), accelerator.device)
            logits_nK[torch.from_numpy(indices).to(accelerator.device)] = output.logits
        if processes > 1:
            # Each row is zero in all processes but one.
            logits_nK = accelerator.reduce(logits_nK)
    array: NDArray[np.float32] = logits_nK.cpu().numpy()
    return array


def mean_loss(logits_nK: NDArray[np.float32], examples: EncodedExamples, config: ModelConfig) -> float:
    """Loss of logits against the examples' labels, in fp64, which no square of an fp32 number overflows."""
    labels = examples.collate(np.arange(len(examples))).labels
    assert labels is not None
    return float(sequence_loss(torch.from_numpy(logits_nK).double(), torch.from_numpy(labels), config))


def _tokenizer(settings: FinetuneSettings, data: LabelledData) -> Tokenizer:
    """The vocabulary asked for, the model's own, or one learned from the training texts."""
    if settings.vocab is not None:
        return Tokenizer.load(settings.vocab)
    if not checkpoint.is_size(settings.model):
        return Tokenizer.load(checkpoint.resolve(settings.model))
    texts = [text for each in data.train for text in (each.text, each.pair) if text is not None]
    tokenizer = Tokenizer.learn(texts, vocab_size=checkpoint.size_config(settings.model).vocab_size)
    say(f"vocabulary: {tokenizer.vocab_size:,} tokens learned from the training texts; --vocab takes one that exists")
    return tokenizer


def _load(settings: FinetuneSettings, task: Task, tokenizer: Tokenizer, seed: int) -> tuple[checkpoint.Loaded, str]:
    """The model with the head that the task needs, and where its weights come from; new ones follow the seed."""
    changes: dict[str, Any] = {
        "num_labels": task.num_labels,
        "problem_type": task.problem_type,
        "hidden_dropout_prob": settings.dropout,
        "attention_probs_dropout_prob": settings.dropout,
        "classifier_dropout": settings.dropout,
    }
    if checkpoint.is_size(settings.model) and settings.vocab is None:
        # Whole multiples of 64 rows suit the matrix units.
        changes["vocab_size"] = -(-tokenizer.vocab_size // 64) * 64
        changes |= {"real_vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id}
    torch.manual_seed(seed)
    loaded = checkpoint.load(settings.model, "sequence_classification", vocab=settings.vocab, **changes)
    start = [loaded.report.describe()]
    # Empty where the outputs have no names, or were of another number.
    known = loaded.config.labels if loaded.config.id2label else ()
    loaded.config = loaded.config.replace(id2label=dict(enumerate(task.labels)))
    loaded.model.config = loaded.config  # type: ignore[assignment]
    classifier = loaded.model.classifier
    assert isinstance(classifier, nn.Linear)
    places = find_places(task.labels, known)
    if known and places is None:
        start.append(f"its classifier was made for {', '.join(known)}, so it begins anew")
        initialize(classifier, loaded.config)
    elif places and places != sorted(places):
        start.append("its classifier's labels were put in the order of the task's")
        for parameter in classifier.parameters():
            parameter.data = parameter.data[places]
    return loaded, "; ".join(start)


def _order(
    settings: FinetuneSettings, model: nn.Module, train: EncodedExamples, accelerator: Accelerator
) -> grouping.Order:
    """The order in which a dense model's channels suit groups, by what it makes of the first training examples."""

    def read() -> None:
        model.to(accelerator.device)
        for start in range(0, min(len(train), _ORDER_EXAMPLES), _EVALUATION_BATCH):
            batch = train.collate(np.arange(start, min(len(train), start + _EVALUATION_BATCH)))
            forward(model, batch, accelerator.device)

    return grouping.order_of_run(accelerator, settings.output, model, settings.groups, settings.model, read)


def _precision(settings: FinetuneSettings, device: torch.device) -> Any:
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def _folder(settings: FinetuneSettings, seed: int) -> Path:
    return settings.output / f"seed-{seed}"


def _write_predictions(
    path: Path, logits: Mapping[str, NDArray[np.float32]], dev: Mapping[str, EncodedExamples]
) -> None:
    """Write label and logits of every scored row, without its text."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, examples in dev.items():
            for index, (label, row) in enumerate(zip(examples.labels or [], logits[name], strict=True)):
                # Nine digits tell every fp32 value from its neighbours.
                values = [float(f"{value:.9g}") for value in row]
                file.write(json.dumps({"split": name, "index": index, "label": label, "logits": values}) + "\n")


def _over_seeds(seeds: list[dict[str, Any]], statistic: Any) -> Figures:
    return {
        split: {name: statistic([each["figures"][split][name] for each in seeds]) for name in figures}
        for split, figures in seeds[0]["figures"].items()
    }
