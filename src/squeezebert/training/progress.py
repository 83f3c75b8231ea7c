"""How a run tells what it does: a line on standard error, ``log.jsonl``, TensorBoard events."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from squeezebert.durations import duration
from squeezebert.errors import require
from squeezebert.files import write_text

LOG = "log.jsonl"

Figures = dict[str, dict[str, float]]
"""Data set -> name of a figure -> value."""


def say(text: str) -> None:
    """Tell the user something, on a line of its own; under torchrun the first process speaks for all."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


class Reporter:
    """Reports one run.

    ``log.jsonl`` holds one object a line: ``{"step", "epoch", "loss", ...}`` while training and ``{"step", "epoch",
    "evaluation": {...}}`` for an evaluation.

    Args:
        folder: The run's folder.
        title: What opens every line, such as ``seed 42``.
        total_steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        first_step: Steps already taken; what an earlier session logged beyond them is dropped.
        enabled: Whether to report at all: the first of several processes does, the others do not.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        total_steps: int,
        steps_per_epoch: int,
        first_step: int = 0,
        enabled: bool = True,
    ) -> None:
        self._enabled = enabled
        if not enabled:
            return
        self._title = title
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._first_step = first_step
        self._start = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._width = 0
        self._figures = ""
        kept = [line for line in read_log(folder) if line["step"] <= first_step]
        write_text(folder / LOG, "".join(json.dumps(line) + "\n" for line in kept))
        self._log = (folder / LOG).open("a", encoding="utf-8")
        require("tensorboard", "train")
        from torch.utils.tensorboard import SummaryWriter

        self._events: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def training(self, step: int, figures: Mapping[str, float]) -> None:
        """Report training: ``figures`` has ``loss``, ``learning_rate``, ``examples_per_second`` and so on."""
        if not self._enabled:
            return
        self._write(step, figures, "train")
        now = time.monotonic()
        if now - self._shown >= (0.2 if self._terminal else 30.0) or step == self._total_steps:
            self._shown = now
            self._show(self._line(step, figures, now))

    def evaluation(self, step: int, figures: Figures, best: bool) -> None:
        """Report an evaluation, and whether it is the best so far."""
        if not self._enabled:
            return
        self._write(step, {"evaluation": figures}, "")
        for split, scores in figures.items():
            for name, value in scores.items():
                self._events.add_scalar(f"{split}/{name}", value, step)
        self._figures = describe_figures(figures)
        self.say(f"{self._title}  epoch {self._epoch(step):g}  step {step:,}  {self._figures}{'  (best)' * best}")

    def say(self, text: str) -> None:
        """Put a line of its own above the line of progress."""
        if not self._enabled:
            return
        if self._terminal and self._width:
            print(f"\r{'':<{self._width}}\r", end="", file=sys.stderr)
            self._width = 0
        say(text)

    def close(self) -> None:
        """End the line and the files."""
        if not self._enabled:
            return
        if self._terminal and self._width:
            print(file=sys.stderr)
        self._log.close()
        self._events.close()

    def _epoch(self, step: int) -> float:
        return round(step / self._steps_per_epoch, 4)

    def _write(self, step: int, figures: Mapping[str, Any], prefix: str) -> None:
        self._log.write(json.dumps({"step": step, "epoch": self._epoch(step), **figures}) + "\n")
        self._log.flush()
        for name, value in figures.items() if prefix else ():
            self._events.add_scalar(f"{prefix}/{name}", value, step)

    def _line(self, step: int, figures: Mapping[str, float], now: float) -> str:
        left = (now - self._start) / max(step - self._first_step, 1) * (self._total_steps - step)
        left = figures.get("seconds_left", left)
        parts = [
            self._title,
            f"epoch {self._epoch(step):.2f}",
            f"step {step:,}/{self._total_steps:,}",
            f"loss {figures['loss']:.4f}",
            f"lr {figures['learning_rate']:.2e}",
            f"{figures['examples_per_second']:,.0f} examples/s",
            f"{figures['tokens_per_second']:,.0f} tokens/s",
        ]
        if "model_flop_utilisation" in figures:
            parts.append(f"{figures['model_flop_utilisation']:.0%} of peak FLOP/s")
        return "  ".join([*parts, f"{duration(left)} left", *([self._figures] if self._figures else [])])

    def _show(self, line: str) -> None:
        if self._terminal:
            line = line[: shutil.get_terminal_size().columns - 1]
            print(f"\r{line:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(line)
        else:
            say(line)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged so far. A last line that a kill cut short is left out."""
    if not (folder / LOG).exists():
        return []
    lines = (folder / LOG).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def describe_figures(figures: Figures) -> str:
    """For people: ``validation accuracy 0.9123 loss 0.2345``."""
    return "  ".join(
        " ".join([split, *(f"{name} {value:.4f}" for name, value in scores.items())])
        for split, scores in figures.items()
    )
