"""Texts -> logits on the golden files, hostile strings included: in Python with the native engine, in JavaScript with
the page's tokenizer and its WebAssembly modules, and in PyTorch.

``logits.json`` is the engine's arithmetic in NumPy, on ``transformers``' tokens (tests/golden/make_logits.py).
"""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from squeezebert.export.web import PAGE
from squeezebert.runtime.engines import native
from squeezebert.runtime.predictor import Predictor
from squeezebert.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
LOGITS = np.array(json.loads((GOLDEN / "logits.json").read_text()))
ROWS = [json.loads(line) for line in (GOLDEN / "tokens.jsonl").read_text(encoding="utf-8").splitlines()]


def check(got: NDArray[Any]) -> None:
    """Compare int8 logits with the golden ones.

    Of two programs with the same integers only roundings in fp32 differ: some tens of 6e-8 each, on logits of about 1.
    So most rows agree to 1e-5. In a few, one of the ten thousand values that are rounded to int8 lies on the border
    between two levels and falls to the other side: it moves by 1 of 127, by 0.5 % of its block of 8 channels' norm,
    0.25 % of the 32 channels', whose norm is sqrt(32); pooler (norm 2, of a random matrix) and classifier (norm 1) make
    that 0.03 at the most. A second one may follow.
    """
    assert got.shape == LOGITS.shape
    apart = np.abs(got - LOGITS).max(axis=1)
    assert (apart < 1e-5).mean() > 0.85
    assert apart.max() < 0.05, ROWS[apart.argmax()]["text"]


def test_python_and_cpp(native_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.LIBRARY_VARIABLE, str(native_library))
    engine, tokenizer = native.NativeEngine.load(GOLDEN / "model"), Tokenizer.load(GOLDEN / "vocab.txt")
    got = np.full_like(LOGITS, np.nan)
    for length in {row["max_length"] for row in ROWS}:
        here = [index for index, row in enumerate(ROWS) if row["max_length"] == length]
        predictor = Predictor(engine, tokenizer, max_length=length)
        got[here] = list(predictor.logits((ROWS[index]["text"], ROWS[index]["pair"]) for index in here))
    check(got)


@pytest.mark.parametrize("module", ["squeezebert", "squeezebert-relaxed"])
def test_javascript(tmp_path: Path, module: str) -> None:
    if shutil.which("node") is None or not (ROOT / "web" / "node_modules" / "@huggingface" / "tokenizers").is_dir():
        pytest.skip("needs node, and npm ci in web/")
    shutil.copytree(GOLDEN / "model", tmp_path, dirs_exist_ok=True)
    Tokenizer.load(GOLDEN / "vocab.txt").save(tmp_path)
    script = Path(__file__).with_name("logits.mjs")
    command = ["node", script, PAGE / f"{module}.wasm", tmp_path, GOLDEN / "tokens.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    logits = json.loads(done.stdout)
    if logits is None:
        pytest.skip("this node has no relaxed SIMD")
    check(np.array(logits))


def test_torch(tmp_path: Path) -> None:
    """The checkpoint in fp32; and that the files are what the script writes."""
    import torch

    from squeezebert import checkpoint

    script = runpy.run_path(str(GOLDEN / "make_logits.py"))
    script["write"](tmp_path)
    kept, made = (load_file(folder / "model" / "model.safetensors") for folder in (GOLDEN, tmp_path))
    assert kept.keys() == made.keys()
    for name, tensor in kept.items():
        np.testing.assert_array_equal(made[name], tensor, err_msg=name)
    np.testing.assert_allclose(json.loads((tmp_path / "logits.json").read_text()), LOGITS, atol=1e-6)

    script["save_checkpoint"](tmp_path / "checkpoint")
    model = checkpoint.load(tmp_path / "checkpoint").model
    with torch.inference_mode():
        inputs = [(torch.tensor([row["ids"]]), None, torch.tensor([row["types"]])) for row in ROWS]
        want = np.stack([model(*each).logits[0].numpy() for each in inputs])
    # Rounding to steps of max / 127 is off by 0.6 % of the usual size (max is about 2 to 3 times that, a step's error
    # 1 / sqrt(12) of it), in both factors of a product; nine products follow one another to a logit: 2.5 % of what
    # tells texts apart. A wrong scale or a lost bias is off by tens of per cent.
    spread = (want - want.mean(axis=0)).std()
    assert np.sqrt(((LOGITS - want) ** 2).mean()) < 0.05 * spread
