"""Both tokenizers on the golden files, hostile strings included."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from squeezebert.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"


def test_python() -> None:
    tokenizer = Tokenizer.load(GOLDEN / "vocab.txt")
    lines = (GOLDEN / "tokens.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 100
    for line in lines:
        row = json.loads(line)
        encoding = tokenizer.encode(row["text"], row["pair"], max_length=row["max_length"])
        assert (encoding.input_ids, encoding.token_type_ids) == (row["ids"], row["types"]), row["text"]


def test_javascript(tmp_path: Path) -> None:
    if shutil.which("node") is None or not (ROOT / "web" / "node_modules" / "@huggingface" / "tokenizers").is_dir():
        pytest.skip("needs node, and npm ci in web/")
    Tokenizer.load(GOLDEN / "vocab.txt").save(tmp_path)
    script = Path(__file__).with_name("tokens.mjs")
    command = ["node", script, tmp_path / "tokenizer.json", GOLDEN / "tokens.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
