"""The engine's own tests, in C++, and its C example, as ``make native`` builds and runs them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def build(build_native: Callable[..., Path]) -> Path:
    """Folder with all programs."""
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    return build_native("-DSQB_TESTS=ON")


@pytest.mark.slow
def test_cpp(build: Path) -> None:
    command = ["ctest", "--test-dir", build, "--output-on-failure", "--parallel", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"100% tests passed, 0 tests failed out of 5\b", done.stdout), done.stdout


@pytest.mark.slow
def test_c_example(build: Path, check_c_example: Callable[..., None]) -> None:
    check_c_example(build / "classify")
