"""A run that is killed, and really so, ends with the weights of one that is not."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from squeezebert.training.finetune import finetune
from squeezebert.training.settings import FinetuneSettings

_PATIENCE = 120.0  # seconds that a loaded machine may take to begin


@pytest.mark.slow
def test_kill_9_in_mid_epoch(settings: Callable[..., FinetuneSettings], tmp_path: Path) -> None:
    # Dropout is on, and a state follows every second step: of 120, the first kill finds few behind and many ahead.
    chosen = {"epochs": 20, "save_every": 2, "evaluate_every": 3.0}
    whole = finetune(settings(**chosen, output=tmp_path / "whole"))
    assert whole is not None
    broken = settings(**chosen)
    states = broken.output / "seed-42" / "state"
    waits = random.Random(0)
    for goal in (3, 25):
        command = [sys.executable, "-m", *shlex.split(broken.command()), "--resume"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            deadline = time.monotonic() + _PATIENCE
            while process.poll() is None and _newest(states) < goal and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(waits.random() / 20)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stderr is not None
            assert process.returncode == -signal.SIGKILL, process.stderr.read().decode()
        assert goal <= _newest(states) < 120
    resumed = finetune(settings(**chosen, resume=True))
    assert resumed is not None
    for name in ("model.safetensors", "dev_predictions.jsonl", "config.json"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert resumed.metrics["mean"] == whole.metrics["mean"]


def _newest(states: Path) -> int:
    """Step of the newest state."""
    return max((int(path.name.removeprefix("step-")) for path in states.glob("step-*")), default=0)
