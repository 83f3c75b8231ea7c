"""The engine as WebAssembly, in node: its operations against the reference, its logits against this machine's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeezebert.export.native import export
from squeezebert.runtime.engines.native import NativeEngine

_ROOT = Path(__file__).resolve().parents[2]
_HERE = Path(__file__).resolve().parent
_BUILT = _ROOT / "src" / "squeezebert" / "web"
LENGTHS = (1, 2, 3, 5, 15, 17, 31, 33, 127, 129, 512)
# node 20 loses a register across memory.atomic.wait32 in code of its baseline compiler.
_FLAGS = ("--no-liftoff", "--no-warnings")


def node(*arguments: str | Path, flags: tuple[str, ...] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    """Run node, or skip where it is absent."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    command = ["node", *_FLAGS, *flags, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)


def relaxed_flags() -> tuple[str, ...]:
    """What lets this node run relaxed instructions."""
    probe = (
        f"import {{ features }} from {json.dumps(str(_ROOT / 'web/src/features.js'))}; console.log(features().relaxed)"
    )
    for flags in ((), ("--experimental-wasm-relaxed-simd",)):
        if node("--input-type=module", "-e", probe, flags=flags).stdout.strip() == "true":
            return flags
    pytest.skip("this node has no relaxed SIMD")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(os.environ.get("CLANG", "clang++-19")) is None:
        pytest.skip("needs clang++-19 with its wasm32 libraries (native/wasm/build.sh)")
    folder = tmp_path_factory.mktemp("wasm")
    subprocess.run([_ROOT / "native" / "wasm" / "build.sh", folder, "--tests"], check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("program", ["test_ops", "test_ops-relaxed", "test_wasm_relaxed"])
def test_operations(programs: Path, program: str) -> None:
    flags = relaxed_flags() if "relaxed" in program else ()
    done = node(_HERE / "wasi.mjs", programs / f"{program}.wasm", flags=flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def run(module: str, artifact: Path, threads: int, ids: list[list[int]], types: Any = None) -> dict[str, Any]:
    flags = relaxed_flags() if "relaxed" in module else ()
    question = json.dumps({"ids": ids, "types": types})
    done = node(_HERE / "run_wasm.mjs", _BUILT / f"{module}.wasm", artifact, str(threads), flags=flags, input=question)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("module", ["squeezebert", "squeezebert-relaxed"])
def test_logits(save_checkpoint: Callable[..., Path], tmp_path: Path, module: str, threads: int) -> None:
    export(save_checkpoint(), tmp_path / "artifact")
    draw = np.random.default_rng(0)
    ids = [draw.integers(0, 2048, length) for length in LENGTHS]
    types = [draw.integers(0, 2, length) for length in LENGTHS]
    engine = NativeEngine.load(tmp_path / "artifact")
    want = engine.run_ragged(np.concatenate(ids), np.concatenate(types), np.array(LENGTHS), logits=True)["logits"]
    answer = run(module, tmp_path / "artifact", threads, [row.tolist() for row in ids], [row.tolist() for row in types])
    assert answer["info"]["threads"] == threads
    got = np.array(answer["logits"], np.float32).reshape(want.shape)
    if module == "squeezebert-relaxed":
        # Multiply-add is fused, as on this machine: the same bits, whatever relaxed products mean here.
        np.testing.assert_array_equal(got, want)
    else:
        # Two roundings in place of one in each multiply-add. A value on the border between two levels may fall to the
        # other side, which moves a logit by far less than this.
        np.testing.assert_allclose(got, want, atol=2e-3)


def test_refusals(save_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    export(save_checkpoint(), artifact)
    assert "id 2048 is outside the vocabulary" in run("squeezebert", artifact, 1, [[5], [2048]])["error"]
    assert "the model takes 1 to 512" in run("squeezebert", artifact, 1, [[5] * 513])["error"]
    whole = (artifact / "model.safetensors").read_bytes()
    (artifact / "model.safetensors").write_bytes(whole[:-1])
    answer = run("squeezebert", artifact, 1, [[5]])
    assert answer["kind"] == "input"
    assert "lies outside the file" in answer["error"]
    (artifact / "config.json").write_text('{"model_type": "bert"}')
    assert "config.json" in run("squeezebert", artifact, 1, [[5]])["error"]
