"""A pretraining run for people: its curves as a picture, and its model card."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from squeezebert import __version__
from squeezebert.data.shards import Corpus
from squeezebert.errors import require
from squeezebert.files import atomic_path
from squeezebert.model.config import ModelConfig
from squeezebert.training.recipes import Recipe


def draw_pretraining_curves(
    path: Path, log: Sequence[Mapping[str, Any]], *, title: str, borders: Sequence[int] = ()
) -> None:
    """Draw losses, accuracies and learning rate over the steps.

    Args:
        path: PNG to write.
        log: What the run logged (:func:`squeezebert.training.progress.read_log`).
        title: What was trained.
        borders: Steps at which a phase begins anew.
    """
    matplotlib = require("matplotlib", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    training = [line for line in log if "loss" in line]
    scored = [line for line in log if "evaluation" in line]
    held_out = [line["evaluation"]["held_out"] for line in scored]
    steps, at = [line["step"] for line in training], [line["step"] for line in scored]
    pairs = bool(held_out) and "sentence_order_accuracy" in held_out[0]
    with matplotlib.rc_context({"font.size": 11, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
        figure = Figure(figsize=(15, 4.6 * (1 + pairs)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1 + pairs, 3, squeeze=False)
        mlm = [line.get("mlm_loss", line["loss"]) for line in training]
        _curve(axes[0, 0], "Masked tokens: loss", "nats", steps, mlm, at, [each["mlm_loss"] for each in held_out])
        accuracy = [100 * each["mlm_accuracy"] for each in held_out]
        _curve(axes[0, 1], "Masked tokens: accuracy", "%", [], [], at, accuracy)
        rate, rates = axes[0, 2], [line["learning_rate"] for line in training]
        rate.plot(steps, rates, color="C2")
        rate.set(title="Learning rate", xlabel="step")
        if pairs:
            order = [line["sentence_order_loss"] for line in training]
            values = [each["sentence_order_loss"] for each in held_out]
            _curve(axes[1, 0], "Sentence order: loss", "nats", steps, order, at, values)
            accuracy, low, high = (
                [100 * each[f"sentence_order_{name}"] for each in held_out] for name in ("accuracy", "low", "high")
            )
            _curve(axes[1, 1], "Sentence order: accuracy with 95 % interval", "%", [], [], at, accuracy)
            axes[1, 1].fill_between(at, low, high, color="C1", alpha=0.2)
            axes[1, 1].axhline(50, color="black", linewidth=0.8, linestyle=":")
            speed = [line["tokens_per_second"] for line in training]
            axes[1, 2].plot(steps, speed, color="C3")
            axes[1, 2].set(title="Speed", xlabel="step", ylabel="tokens/s")
            axes[1, 2].set_ylim(bottom=0)
        for each in axes.flat:
            each.set_xlim(left=0)
            for border in borders:
                each.axvline(border, color="grey", linewidth=0.8, linestyle="--")
        figure.suptitle(title)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def _curve(
    axes: Any, title: str, unit: str, steps: list[int], training: list[float], at: list[int], scores: list[float]
) -> None:
    if training:
        axes.plot(steps, training, color="C0", alpha=0.6, linewidth=0.8, label="training")
    axes.plot(at, scores, color="C1", marker="o", markersize=4, label="held out")
    axes.set(title=title, xlabel="step", ylabel=unit)
    axes.legend(fontsize=9)


def pretraining_card(
    *, recipe: Recipe, config: ModelConfig, corpus: Corpus, metrics: Mapping[str, Any], command: str
) -> str:
    """Write the model card as Markdown.

    Args:
        recipe: How the model was trained.
        config: Its sizes.
        corpus: What it learned from.
        metrics: The content of ``metrics.json``.
        command: What repeats the run.
    """
    figures = metrics["figures"]["held_out"]
    order = ""
    if "sentence_order_accuracy" in figures:
        order = (
            f"| sentence-order accuracy | {100 * figures['sentence_order_accuracy']:.1f} % (Wilson 95 % interval "
            f"{100 * figures['sentence_order_low']:.1f} to {100 * figures['sentence_order_high']:.1f} %; "
            "chance is 50 %) |\n"
        )
    sources = "\n".join(f"- {each.get('name', each)}" for each in corpus.manifest.inputs) or "- not recorded"
    phases = "\n".join(
        f"| {index} | {phase.steps:,} | {phase.length} | {phase.batch_size:,} | {phase.learning_rate:g} | "
        f"{phase.warmup_proportion:g} | {phase.power:g} |"
        for index, phase in enumerate(recipe.phases, start=1)
    )
    notes = "".join(
        f"\nIn phase {index} a pair's passages overlapped by up to {phase.overlap} tokens at first, in a share of the "
        f"pairs that fell from all to {max(0.0, 1 - phase.steps / phase.overlap_steps):.0%} over "
        f"{min(phase.steps, phase.overlap_steps):,} steps; never in held-out text.\n"
        for index, phase in enumerate(recipe.phases, start=1)
        if phase.overlap
    ) + "".join(
        f"\nIn phase {index} the sentence order weighed {phase.sentence_order_weight:g} times the masked tokens.\n"
        for index, phase in enumerate(recipe.phases, start=1)
        if phase.sentence_order_weight is not None
    )
    rows = "\n".join(f"| `{name}` | `{value}` |" for name, value in recipe.to_dict().items() if name != "phases")
    return f"""---
library_name: squeezebert
pipeline_tag: fill-mask
tags:
- squeezebert
- fill-mask
---

# SqueezeBERT, pretrained

{config.num_hidden_layers} layers of {config.hidden_size} channels, trained from {metrics["start"]} to guess masked \
tokens{"" if recipe.mlm_only else " and the order of two passages"}.

```
squeezebert fill-mask --model . "the capital of [MASK] is paris"
squeezebert finetune --model . --task sst2 --output RUN
```

## Data

{corpus.n_tokens:,} tokens in {corpus.n_documents:,} documents, from

{sources}

## Figures

On {recipe.held_out_rows:,} rows of held-out text, of the last phase's length; masks are the same each time.

| figure | value |
| --- | --- |
| masked-token loss | {figures["mlm_loss"]:.4f} nats |
| masked-token accuracy | {100 * figures["mlm_accuracy"]:.1f} % |
| pseudo-perplexity, exp of that loss | {figures["pseudo_perplexity"]:.2f} |
{order}
Curves: `curves.png`.

## Training

```
{command}
```

| phase | steps | length | batch | learning rate | warm-up | power |
| --- | --- | --- | --- | --- | --- | --- |
{phases}
{notes}
| setting | value |
| --- | --- |
{rows}

{metrics["steps"]:,} steps, {metrics["tokens"] / 1e6:,.1f} M tokens, {metrics["flops"]:.2e} FLOP in \
{metrics["seconds"] / 60:.0f} min: {metrics["tokens_per_second"]:,.0f} tokens/s, \
{100 * metrics["model_flop_utilisation"]:.0f} % of {metrics["processes"]} x {metrics["peak_flops"] / 1e12:.2f} TFLOP/s \
({metrics["peak_origin"]}).
Ran on {metrics["device"]}, {platform.machine()}, {metrics["precision"]}, with squeezebert {__version__}, torch \
{torch.__version__} and Python {platform.python_version()}.

## Limits

- It fills gaps in text and is a start for finetuning; it labels nothing by itself.
- It has seen no text of more than {max(phase.length for phase in recipe.phases)} tokens.
- What is skewed or missing in the text is in the model too.
"""
