"""Small checkpoints, the engine's library in its place, and programs of native/."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_NATIVE = Path(__file__).resolve().parents[2] / "native"


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


@pytest.fixture(scope="session")
def build_native(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that builds targets of native/ (none named: all) with options of cmake, and gives the folder."""

    def build(*options: str, targets: tuple[str, ...] = ()) -> Path:
        if shutil.which("cmake") is None:
            pytest.skip("needs cmake")
        folder = tmp_path_factory.mktemp("native")
        chosen = ["--target", *targets] if targets else []
        for command in (
            ["cmake", "-S", _NATIVE, "-B", folder, *options],
            ["cmake", "--build", folder, "--parallel", "2", *chosen],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        return folder

    return build


@pytest.fixture
def check_c_example(save_classifier: Callable[..., Path], tmp_path: Path) -> Callable[..., None]:
    """A function that holds the C example's logits, of texts alone and in one ragged batch, equal to this machine's."""

    def check(*command: str | Path) -> None:
        from squeezebert.export.native import export
        from squeezebert.runtime.engines.native import NativeEngine

        export(save_classifier(), tmp_path / "artifact")
        engine = NativeEngine.load(tmp_path / "artifact")
        draw = np.random.default_rng(0)
        texts = [draw.integers(0, engine.tokenizer.vocab_size, length) for length in (1, 5, 31, 128)]
        for batch in (*([text] for text in texts), texts):
            ids = np.concatenate(batch)
            want = engine.run_ragged(ids, None, np.array([len(text) for text in batch]), logits=True)["logits"]
            words = " / ".join(" ".join(map(str, text)) for text in batch).split()
            done = subprocess.run([*command, tmp_path / "artifact", *words], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            got = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
            # Every sum is taken in the same order, and multiply-add fused, whatever the instruction set: the same bits.
            np.testing.assert_array_equal(got, want)

    return check
