from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from squeezebert.errors import InputError
from squeezebert.training import state
from squeezebert.training.optimizer import Lamb
from squeezebert.training.state import Evaluation, Progress, latest_state, load_state, save_state


def _trained(make: Callable[..., torch.optim.Optimizer], steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = make(model.parameters(), lr=0.1)
    for step in range(steps):
        model(torch.full((2, 4), float(step))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def _step(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("make", [lambda p, lr: torch.optim.AdamW(p, lr=lr, fused=True), Lamb])
def test_training_goes_on_bit_for_bit(tmp_path: Path, make: Callable[..., torch.optim.Optimizer]) -> None:
    model, optimizer = _trained(make, steps=5)
    progress = Progress(step=5, seconds=1.5, examples=10, evaluations=[Evaluation(3, 1.5, 0.1, {"dev": {"f1": 0.1}})])
    path = save_state(tmp_path, model, optimizer, progress)
    other, other_optimizer = _trained(make, steps=1)
    assert load_state(path, other, other_optimizer) == progress
    for ours, theirs in zip(_step(other, other_optimizer), _step(model, optimizer), strict=True):
        assert torch.equal(ours, theirs)


def test_the_newest_states_stay(tmp_path: Path) -> None:
    model, optimizer = _trained(torch.optim.AdamW, steps=1)
    for step in (5, 20, 100):
        save_state(tmp_path, model, optimizer, Progress(step=step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000100"]
    assert latest_state(tmp_path) == tmp_path / "step-00000100"


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    model, optimizer = _trained(torch.optim.AdamW, steps=1)
    saved = save_state(tmp_path, model, optimizer, Progress(step=5))
    (tmp_path / ".step-00000009.123.tmp").mkdir()
    (tmp_path / ".step-00000009.123.tmp" / "state.safetensors").write_bytes(b"half")
    assert latest_state(tmp_path) == saved
    assert list(tmp_path.iterdir()) == [saved]


def test_no_state(tmp_path: Path) -> None:
    assert latest_state(tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["truncate", "json", "missing", "other model"])
def test_a_damaged_state_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    model, optimizer = _trained(torch.optim.AdamW, steps=1)
    path = save_state(tmp_path, model, optimizer, Progress(step=5))
    if damage == "truncate":
        (path / "state.safetensors").write_bytes((path / "state.safetensors").read_bytes()[:50])
    elif damage == "json":
        (path / "state.json").write_text("{")
    elif damage == "missing":
        (path / "state.safetensors").unlink()
    else:
        model = nn.Linear(5, 3)
        optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(InputError, match=r"step-00000005: this training state cannot be read \([^\n]*\); remove it"):
        load_state(path, model, optimizer)


def test_a_full_disk_leaves_the_former_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = _trained(torch.optim.AdamW, steps=1)
    saved = save_state(tmp_path, model, optimizer, Progress(step=5))

    def full(*args: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(OSError, match="step-00000006") as caught:
        save_state(tmp_path, model, optimizer, Progress(step=6))
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == [saved]


def test_the_best_evaluation_is_the_first_of_the_highest() -> None:
    scores = [0.1, 0.5, 0.5, 0.2]
    progress = Progress(evaluations=[Evaluation(step, float(step), score, {}) for step, score in enumerate(scores)])
    assert progress.best is progress.evaluations[1]
    assert progress.evaluations_since_best == 2
    assert Progress().best is None
    assert Progress().evaluations_since_best == 0
