"""The engine's NEON kernels under emulation: the bits of the reference, and no instruction the processor lacks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_NATIVE = Path(__file__).resolve().parents[2] / "native"
_QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the C++ tests, cross-compiled."""
    for name in ("cmake", "aarch64-linux-gnu-g++"):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}")
    if _QEMU is None:
        pytest.skip("needs qemu-aarch64")
    folder = tmp_path_factory.mktemp("aarch64")
    toolchain = _NATIVE / "cmake" / "aarch64.cmake"
    subprocess.run(
        ["cmake", "-S", _NATIVE, "-B", folder, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}"], check=True, capture_output=True
    )
    subprocess.run(
        ["cmake", "--build", folder, "--parallel", "2", "--target", "test_ops", "test_model"],
        check=True,
        capture_output=True,
    )
    return folder


def _run(test: Path, processor: str) -> list[str]:
    """Lines that a C++ test printed on an emulated processor, having passed."""
    command = [str(_QEMU), "-L", "/usr/aarch64-linux-gnu", "-cpu", processor, str(test), "quick"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processor", "sets"),
    [
        ("max", ["neoni8mm", "neondot", "reference"]),
        ("neoverse-n1", ["neondot", "reference"]),
        ("cortex-a72", ["reference"]),
    ],
)
def test_operations(build: Path, processor: str, sets: list[str]) -> None:
    lines = _run(build / "test_ops", processor)
    assert [line.split(":")[0] for line in lines if ": 0 failures" in line] == sets


@pytest.mark.slow
def test_model(build: Path) -> None:
    assert _run(build / "test_model", "max")[-1] == "passed"
