"""Training states: folders from which a killed run goes on as if nothing had happened.

``state/step-00000500`` holds weights and optimizer moments (``state.safetensors``) and the rest (``state.json``). It is
complete or absent. Order and dropout are functions of seed and step (:mod:`squeezebert.training.loop`), so the step
stands for the position in the data and for every random number generator.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from squeezebert.errors import InputError
from squeezebert.files import atomic_folder, read_json, safetensors_errors, write_json

KEPT = 2
"""Newest states that stay, where nothing else is said; older ones are removed."""


@dataclass
class Evaluation:
    """Scores at one moment of a run."""

    step: int
    """Optimizer steps taken."""
    epoch: float
    """Passes over the data."""
    score: float
    """The figure that chooses the best checkpoint; larger is better."""
    figures: dict[str, dict[str, float]]
    """All figures: data set -> name -> value."""


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    """Optimizer steps taken."""
    seconds: float = 0.0
    """Time spent in them, over all sessions."""
    examples: int = 0
    """Examples seen in them."""
    lowest_loss: float | None = None
    """The lowest training loss between two looks at it."""
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the highest score, the first of equals."""
        return max(self.evaluations, key=lambda evaluation: evaluation.score, default=None)

    @property
    def evaluations_since_best(self) -> int:
        """Evaluations after the best one."""
        best = self.best
        return 0 if best is None else len(self.evaluations) - 1 - self.evaluations.index(best)


def save_state(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    progress: Progress,
    *,
    kept: int = KEPT,
    write: bool = True,
) -> Path:
    """Write the state of a run into ``folder``, and remove all but the newest.

    Args:
        folder: Where the run keeps its states.
        model: Its weights are saved.
        optimizer: Its moments are saved.
        progress: How far the run has come.
        kept: Newest states that stay.
        write: Whether this process is the one that writes.

    Returns:
        The state's own folder.

    Raises:
        OSError: The disk is full or cannot be written; former states are intact.
    """
    path = folder / f"step-{progress.step:08d}"
    if not write:
        return path
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    moments = optimizer.state_dict()
    for index, values in moments["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    with atomic_folder(path) as temporary, safetensors_errors(path):
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary / "state.safetensors")
        write_json(temporary / "state.json", {"progress": asdict(progress), "groups": moments["param_groups"]})
    for former in _states(folder)[:-kept]:
        shutil.rmtree(former)
    return path


def load_state(path: Path, model: nn.Module, optimizer: Optimizer) -> Progress:
    """Restore what :func:`save_state` wrote.

    Raises:
        InputError: A file of the state is damaged, or it belongs to another model.
    """
    try:
        stored = read_json(path / "state.json")
        tensors = load_file(path / "state.safetensors")
        state: dict[int, dict[str, Tensor]] = {}
        weights: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest] = tensor
            else:
                index, _, rest = rest.partition(".")
                state.setdefault(int(index), {})[rest] = tensor
        model.load_state_dict(weights)
        optimizer.load_state_dict({"state": state, "param_groups": stored["groups"]})
        values = stored["progress"]
        return Progress(**values | {"evaluations": [Evaluation(**each) for each in values["evaluations"]]})
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: this training state cannot be read ({reason}); remove it to go on from the one before"
        ) from error


def latest_state(folder: Path) -> Path | None:
    """The newest state in ``folder``; what a killed process left half-written is removed."""
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return next(reversed(_states(folder)), None)


def _states(folder: Path) -> list[Path]:
    """Complete states, oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name))
