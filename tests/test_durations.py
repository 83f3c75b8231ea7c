from __future__ import annotations

import subprocess
import sys

import pytest

from squeezebert.durations import duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (120, "2 min"), (5940, "99 min"), (12_000, "3 h 20 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_verbs_that_do_not_train_leave_training_alone() -> None:
    code = (
        "import sys, squeezebert.cli.progress, squeezebert.cli.classify, squeezebert.cli.corpus\n"
        "print([name for name in sys.modules if name.startswith('squeezebert.training')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
