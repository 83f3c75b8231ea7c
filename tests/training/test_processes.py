"""Several processes train what one trains."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from squeezebert.training.finetune import finetune
from squeezebert.training.progress import read_log
from squeezebert.training.settings import FinetuneSettings


@pytest.mark.slow
def test_two_processes_train_what_one_trains(settings: Callable[..., FinetuneSettings], tmp_path: Path) -> None:
    # 41 rows in batches of 8: the last batch of an epoch has one row, which leaves nothing for the second process.
    rows = (tmp_path / "train.csv").read_text().splitlines(keepends=True)
    (tmp_path / "train.csv").write_text("".join(rows[:42]))
    chosen = {"dropout": 0.0, "evaluate_every": 0.5, "learning_rate": 1e-3, "accumulation": 2}
    one = finetune(settings(**chosen, output=tmp_path / "one"))
    assert one is not None
    two = settings(**chosen, output=tmp_path / "two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", *shlex.split(two.command())],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model: ") == 1
    losses = [
        [line["loss"] for line in read_log(tmp_path / name / "seed-42") if "loss" in line] for name in ("one", "two")
    ]
    assert len(losses[0]) == len(losses[1]) > 3
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=0, atol=1e-5)
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in expected.items():
        # The softmax takes no notice of the key's bias, so its gradient is rounding, which AdamW makes a full step of.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=name)
    predictions = [
        [json.loads(line) for line in (tmp_path / name / "dev_predictions.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for ours, theirs in zip(*predictions, strict=True):
        assert ours["label"] == theirs["label"]
        assert ours["logits"] == pytest.approx(theirs["logits"], abs=1e-4)
