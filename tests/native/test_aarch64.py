"""The engine for 64-bit ARM: its kernels under emulation, without an instruction that the processor lacks, and the C
example, whose logits are this machine's; and that clang, the compiler of Android and iOS, takes the kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from squeezebert.export.native import export
from squeezebert.runtime.engines.native import NativeEngine

_NATIVE = Path(__file__).resolve().parents[2] / "native"
_QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the C++ tests and the C example, cross-compiled."""
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
        ["cmake", "--build", folder, "--parallel", "2", "--target", "test_ops", "test_model", "classify"],
        check=True,
        capture_output=True,
    )
    return folder


def _run(program: Path, processor: str, *arguments: str) -> list[str]:
    """Lines that a program printed on an emulated processor, having succeeded."""
    command = [str(_QEMU), "-L", "/usr/aarch64-linux-gnu", "-cpu", processor, str(program), *arguments]
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
    lines = _run(build / "test_ops", processor, "quick")
    assert [line.split(":")[0] for line in lines if ": 0 failures" in line] == sets


@pytest.mark.slow
def test_model(build: Path) -> None:
    assert _run(build / "test_model", "max", "quick")[-1] == "passed"


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["max", "neoverse-n1", "cortex-a72"])
def test_c_example(build: Path, save_classifier: Callable[..., Path], tmp_path: Path, processor: str) -> None:
    export(save_classifier(), tmp_path / "artifact")
    ids = [2, 7, 9, 8, 3]
    printed = _run(build / "classify", processor, str(tmp_path / "artifact"), *map(str, ids))
    engine = NativeEngine.load(tmp_path / "artifact")
    want = engine.run_ragged(np.array(ids), None, np.array([len(ids)]), logits=True)["logits"][0]
    assert [int(line.split()[0]) for line in printed] == list(range(len(want)))
    # Six decimals are printed.
    np.testing.assert_allclose([float(line.split()[1]) for line in printed], want, rtol=1e-6, atol=5e-7)


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
