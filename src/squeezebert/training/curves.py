"""A run's curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from squeezebert.errors import require
from squeezebert.files import atomic_path


def draw_curves(path: Path, logs: Mapping[str, list[dict[str, Any]]], *, title: str, metric: str) -> None:
    """Draw loss, score and learning rate over the epochs, a colour for each run.

    Args:
        path: PNG to write.
        logs: Name of a run -> what it logged (:func:`squeezebert.training.progress.read_log`).
        title: What the runs learned.
        metric: The metric that chose the best checkpoint.
    """
    matplotlib = require("matplotlib", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 11, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
        figure = Figure(figsize=(15, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        loss, score, rate = figure.subplots(1, 3)
        for number, (name, log) in enumerate(logs.items()):
            colour = f"C{number % 10}"
            training = [line for line in log if "loss" in line]
            epochs = [line["epoch"] for line in training]
            values = [line["loss"] for line in training]
            loss.plot(epochs, values, color=colour, alpha=0.25, linewidth=0.8)
            loss.plot(epochs, _smooth(values), color=colour, label=f"{name}, training")
            rate.plot(epochs, [line["learning_rate"] for line in training], color=colour, label=name)
            evaluations = [line for line in log if "evaluation" in line]
            at = [line["epoch"] for line in evaluations]
            for style, split in zip(
                ("-", "--", ":"), evaluations[0]["evaluation"] if evaluations else (), strict=False
            ):
                figures = [line["evaluation"][split] for line in evaluations]
                label = f"{name}, {split.replace('_', ' ')}"
                score.plot(at, [each[metric] for each in figures], style, marker="o", color=colour, label=label)
                loss.plot(at, [each["loss"] for each in figures], style, marker="o", color=colour, label=label)
        _label(loss, "Loss", "loss (training smoothed over 20 points)")
        _label(score, f"Score that chooses the checkpoint: {metric.replace('_', ' ')}", metric.replace("_", " "))
        _label(rate, "Learning rate", "learning rate")
        figure.suptitle(title)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def _label(axes: Any, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)
    axes.set_xlim(left=0)
    if axes.lines:
        axes.legend(fontsize=9)


def _smooth(values: list[float], span: int = 20) -> list[float]:
    """Mean of up to ``span`` values before and at each."""
    return [sum(part) / len(part) for part in (values[max(0, end - span) : end] for end in range(1, len(values) + 1))]
