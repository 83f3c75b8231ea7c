"""The model card: what a finetuned model learned from, how, how well, and what it is not good for."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from squeezebert import __version__
from squeezebert.data.tasks import Task


def model_card(
    *,
    task: Task,
    notes: Sequence[str],
    start: str,
    settings: Mapping[str, Any],
    command: str,
    device: str,
    max_length: int,
    metrics: Mapping[str, Any],
) -> str:
    """Write the card as Markdown.

    Args:
        task: What was learned.
        notes: Where the data come from, a line each.
        start: Where the weights come from.
        settings: All settings by name.
        command: What repeats the run.
        device: What it ran on.
        max_length: Tokens kept of a text.
        metrics: The content of ``metrics.json``.
    """
    seeds = ", the better seed" if len(metrics["seeds"]) > 1 else ""
    labels = ", ".join(f"`{label}`" for label in task.labels) if task.labels else "a number"
    return f"""---
library_name: squeezebert
pipeline_tag: text-classification
tags:
- squeezebert
- text-classification
---

# SqueezeBERT finetuned on {task.name}

Takes {"two texts" if task.pair else "a text"}, gives {_GIVES[task.kind]}: {labels}.

```
squeezebert classify --model . {'"the first text" --pair "the second text"' if task.pair else '"a text to label"'}
```

## Data

{_bullets(notes)}

The rows that are scored below also chose the checkpoint{seeds} and perhaps the settings, so expect
somewhat less on new texts.

## Figures

{_table(metrics)}

Best seed: {metrics["best_seed"]}, the one in this folder. Curves: `curves.png`. Logits of every scored row:
`dev_predictions.jsonl`.

## Training

Start: {start}.

```
{command}
```

| setting | value |
| --- | --- |
{_rows((f"`{name}`", f"`{value}`") for name, value in settings.items() if value is not None and value is not False)}

Ran on {device}, {platform.machine()}, with Python {platform.python_version()} and
{", ".join(f"{name} {version}" for name, version in _versions().items())}.

## Limits

- It knows the kind of text that it was trained on, and its labels only; other texts get one of them all the same.
- It has seen no text of more than {max_length} tokens; longer ones are cut.
- What is skewed or missing in the data, or in the text of the pretraining, is in the model too.
"""


_GIVES = {
    "single_label": "one of these labels",
    "multi_label": "any number of these labels",
    "regression": "a value",
}


def _versions() -> dict[str, str]:
    versions = {"squeezebert": __version__, "torch": torch.__version__}
    return versions | {name: importlib.metadata.version(name) for name in ("accelerate", "tokenizers", "numpy")}


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _rows(rows: Any) -> str:
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def _table(metrics: Mapping[str, Any]) -> str:
    """A row for each seed, then their mean and standard deviation."""
    names = [(split, name) for split, figures in metrics["mean"].items() for name in figures]
    lines = [["seed", "epoch", *(f"{split} {name}" for split, name in names)], ["---"] * (len(names) + 2)]
    for each in metrics["seeds"]:
        lines.append(
            [each["seed"], f"{each['epoch']:g}", *(f"{each['figures'][split][name]:.4f}" for split, name in names)]
        )
    if metrics["sd"] is not None:
        means = (f"{metrics['mean'][split][name]:.4f} ± {metrics['sd'][split][name]:.4f}" for split, name in names)
        lines.append(["mean ± sd", "", *means])
    return _rows(lines)
