"""General distillation in a pretraining run: the teacher, the student around the model, scores, curves and card."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from squeezebert import __version__, bert, checkpoint
from squeezebert.data.pretraining import PretrainingSource
from squeezebert.errors import InputError, require
from squeezebert.files import atomic_path
from squeezebert.model.squeezebert import SqueezeBert
from squeezebert.tokenizer import Tokenizer
from squeezebert.training.embedding_stage import train_embedding
from squeezebert.training.encoder_distillation import (
    DistilledEncoder,
    EncoderDistillationLoss,
    require_same_vocabulary,
    score_distillation,
)
from squeezebert.training.grouping import Order, order_beside
from squeezebert.training.progress import Figures
from squeezebert.training.recipes import Recipe
from squeezebert.training.teacher import hash_files


class GeneralDistillation:
    """A teacher, and the student that learns from it.

    Args:
        source: The teacher's folder or hub id.
        recipe: What is learned, and on rows of which length.
        model: The student: a bare encoder, or one with the heads of pretraining.
        tokenizer: The corpus's vocabulary.
        device: Where to compute.
        order: In which the student, an encoder like its teacher, was put; None: in none.

    Attributes:
        student: What is trained.
        loss: How far it is from the teacher.
        fingerprint: Hash of the teacher.

    Raises:
        InputError: The teacher cannot be read, has another vocabulary, or takes shorter texts.
    """

    def __init__(
        self,
        source: str,
        recipe: Recipe,
        model: nn.Module,
        tokenizer: Tokenizer,
        device: torch.device,
        order: Order | None = None,
    ) -> None:
        assert recipe.distillation is not None
        loaded = bert.load_encoder(source)
        require_same_vocabulary(
            source, loaded.tokenizer, tokenizer, "the corpus's", f"build the corpus with --vocab {source}"
        )
        longest = max(phase.length for phase in recipe.phases)
        if loaded.config.max_position_embeddings < longest:
            raise InputError(
                f"{source}: takes {loaded.config.max_position_embeddings} tokens, but the recipe has rows of {longest}"
            )
        width = loaded.config.hidden_size
        if order is not None and not recipe.groups and width != len(order.channels):
            order = None  # of another encoder; a layer that is trained stands between student and teacher
        if order is not None and width != len(order.channels):
            raise InputError(
                f"{source}: has {width} channels, and the model to be cut into groups {len(order.channels)}; "
                "take a teacher of its width"
            )
        assert isinstance(loaded.model, SqueezeBert)
        self.source = source
        self.teacher = loaded.model.to(device)
        self.student = DistilledEncoder(model, loaded.config.hidden_size, recipe.distillation).to(device)
        taken = order_beside(source, order)
        self.loss = EncoderDistillationLoss(self.teacher, self.student.encoder, recipe.distillation, device, taken)
        self._places = None if taken is None else taken.places.to(device)
        self.fingerprint = hash_files(checkpoint.resolve(source))
        self._recipe = recipe

    def train_embedding(self, accelerator: Accelerator, folder: Path, deadline: float) -> bool:
        """Run the first stage, where the recipe has one; whether it is finished."""
        recipe = self._recipe.distillation
        assert recipe is not None
        return not recipe.embedding_steps or train_embedding(
            accelerator, self.student, self.teacher, recipe,
            places=self._places, folder=folder, seed=self._recipe.seed, deadline=deadline,
        )  # fmt: skip

    def score(self, source: PretrainingSource, accelerator: Accelerator, precision: str) -> Figures:
        """Compare student and teacher on held-out text."""
        rows = self._recipe.held_out_rows
        return score_distillation(self.student, self.loss, source, accelerator, rows=rows, precision=precision)


def draw_distillation_curves(path: Path, log: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Draw the loss, the errors of every layer on held-out text, and the learning rate over the steps.

    Args:
        path: PNG to write.
        log: What the run logged.
        title: What was trained.
    """
    matplotlib = require("matplotlib", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    training = [line for line in log if "loss" in line]
    scored = [line for line in log if "evaluation" in line]
    steps, at = [line["step"] for line in training], [line["step"] for line in scored]
    held_out = [line["evaluation"]["held_out"] for line in scored]
    with matplotlib.rc_context({"font.size": 11, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
        figure = Figure(figsize=(15, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        loss, errors, rate = figure.subplots(1, 3)
        loss.plot(steps, [line["loss"] for line in training], color="C0", alpha=0.6, linewidth=0.8, label="training")
        loss.plot(at, [each["loss"] for each in held_out], color="C1", marker="o", markersize=4, label="held out")
        loss.set(title="Loss", xlabel="step", yscale="log")
        loss.legend(fontsize=9)
        scores = held_out[-1] if held_out else {}
        drawn = [name for name in scores if name.endswith("_error") or name == "sentence_loss"]
        for name in drawn:
            label = name.removesuffix("_error").removesuffix("_loss").replace("_", " ")
            errors.plot(at, [each[name] for each in held_out], marker="o", markersize=4, label=label)
        errors.set(title="Held out: relative squared error", xlabel="step", yscale="log")
        if drawn:
            errors.legend(fontsize=9)
        rate.plot(steps, [line["learning_rate"] for line in training], color="C2")
        rate.set(title="Learning rate", xlabel="step")
        figure.suptitle(title)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def distillation_card(
    *, recipe: Recipe, teacher: str, sources: Sequence[str], metrics: Mapping[str, Any], command: str
) -> str:
    """Write the model card as Markdown.

    Args:
        recipe: How the model was trained.
        teacher: Where the teacher came from.
        sources: What the corpus was built from.
        metrics: The content of ``metrics.json``.
        command: What repeats the run.
    """
    figures = "\n".join(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in
                        metrics["figures"]["held_out"].items())  # fmt: skip
    settings = "\n".join(f"| `{name}` | `{value}` |" for name, value in recipe.to_dict().items())
    return f"""---
library_name: squeezebert
tags:
- squeezebert
- distillation
---

# SqueezeBERT, distilled

An encoder that came to compute what {teacher} computes, layer by layer, on text without labels; a start for finetuning.
It was trained from {metrics["start"]}.

```
squeezebert finetune --model . --task sst2 --output RUN
```

## Data

{chr(10).join(f"- {source}" for source in sources) or "- not recorded"}

## Figures

On {recipe.held_out_rows:,} rows of held-out text. An error is the squared distance from the teacher's vector, mean over
tokens, relative to the mean square of the teacher's vectors in that layer; 0 would be a copy.

| figure | value |
| --- | --- |
{figures}

Curves: `curves.png`{" and `pretraining_curves.png`" if recipe.predicts == "pretraining" else ""}.

## Training

```
{command}
```

| setting | value |
| --- | --- |
{settings}

{metrics["steps"]:,} steps, {metrics["tokens"] / 1e6:,.1f} M tokens in {metrics["seconds"] / 60:.0f} min:
{metrics["tokens_per_second"]:,.0f} tokens/s on {metrics["device"]}, {platform.machine()}, {metrics["precision"]}, with
squeezebert {__version__}, torch {torch.__version__} and Python {platform.python_version()}.

## Limits

- It has seen no text of more than {max(phase.length for phase in recipe.phases)} tokens.
- What is skewed or missing in the text, or in its teacher, is in the model too.
"""
