"""The engine for 64-bit ARM: its C++ tests under emulation, without an instruction that the processor lacks, and the C
example, whose logits are this machine's; and that clang, the compiler of Android and iOS, takes the kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

_NATIVE = Path(__file__).resolve().parents[2] / "native"
_QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
PROCESSORS = {
    "max": ["neoni8mm", "neondot", "reference"],
    "neoverse-n1": ["neondot", "reference"],  # dot products, no i8mm
    "cortex-a72": ["reference"],  # neither
}
"""Emulated processors, with the kernels that each can run."""


@pytest.fixture(scope="module")
def build(build_native: Callable[..., Path]) -> Path:
    """Folder with the C++ tests and the C example, cross-compiled."""
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("needs aarch64-linux-gnu-g++")
    if _QEMU is None:
        pytest.skip("needs qemu-aarch64")
    programs = ("test_ops", "test_model", "test_artifact", "test_threads", "fuzz_artifact", "classify")
    return build_native(f"-DCMAKE_TOOLCHAIN_FILE={_NATIVE / 'cmake' / 'aarch64.cmake'}", targets=programs)


def emulate(processor: str) -> list[str]:
    """The command that runs a program on an emulated processor."""
    return [str(_QEMU), "-L", "/usr/aarch64-linux-gnu", "-cpu", processor]


def run(program: Path, processor: str, *arguments: str) -> list[str]:
    """Lines that a test printed, having passed."""
    command = [*emulate(processor), str(program), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == "passed"
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_operations(build: Path, processor: str) -> None:
    lines = run(build / "test_ops", processor, "quick")
    assert [line.split(":")[0] for line in lines if ": 0 failures" in line] == PROCESSORS[processor]


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["max", "cortex-a72"])
@pytest.mark.parametrize(
    ("program", "arguments"),
    [("test_model", ["quick"]), ("test_artifact", []), ("test_threads", []), ("fuzz_artifact", ["500"])],
)
def test_programs(build: Path, program: str, arguments: list[str], processor: str) -> None:
    run(build / program, processor, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_c_example(build: Path, check_c_example: Callable[..., None], processor: str) -> None:
    check_c_example(*emulate(processor), build / "classify")


@pytest.mark.parametrize(
    ("name", "instructions"), [("neondot", "armv8.2-a+dotprod"), ("neoni8mm", "armv8.2-a+dotprod+i8mm")]
)
def test_clang_takes_the_kernels(name: str, instructions: str) -> None:
    clang = shutil.which(os.environ.get("CLANG", "clang++-19")) or shutil.which("clang++")
    if clang is None or not Path("/usr/aarch64-linux-gnu").is_dir():
        pytest.skip("needs clang++, and Debian's g++-aarch64-linux-gnu for its headers")
    command = [
        clang,
        "--target=aarch64-linux-gnu",
        "-std=c++17",
        "-fsyntax-only",
        "-DSQB_ARM=1",
        f"-march={instructions}",
    ]
    folders: list[str | Path] = ["-I", _NATIVE / "src", "-I", _NATIVE / "include"]
    done = subprocess.run([*command, *folders, _NATIVE / "src" / "isa" / f"{name}.cc"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
