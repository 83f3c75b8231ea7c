"""Small checkpoints, and the engine's library in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _use_library(native_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from squeezebert.runtime.engines import native

    monkeypatch.setenv(native.LIBRARY_VARIABLE, str(native_library))


@pytest.fixture
def save_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """A function that saves a small checkpoint of random weights, with biases and norms that are not trivial."""

    def save(head: str = "sequence_classification", **changes: Any) -> Path:
        import torch

        from squeezebert import checkpoint

        torch.manual_seed(0)
        loaded = checkpoint.load("tiny", head, **{"initializer_range": 0.1, **changes})
        with torch.no_grad():
            for parameter in loaded.model.parameters():
                if parameter.ndim == 1:
                    parameter += 0.2 * torch.randn_like(parameter)
        folder = tmp_path / "checkpoint"
        checkpoint.save(loaded.model, folder, extra={"max_length": 64, "pair": False})
        return folder

    return save
