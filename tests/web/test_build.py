"""The parts of the page in node, and whether the package holds the page and the engine as they are built now."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from squeezebert.export.web import PAGE

ROOT = Path(__file__).resolve().parents[2]


def test_units() -> None:
    if shutil.which("node") is None:
        pytest.skip("needs node")
    script = Path(__file__).with_name("units.mjs")
    done = subprocess.run(["node", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["squeezebert", "squeezebert-relaxed"])
def test_module_is_current(module: str) -> None:
    """Its last section is a hash of what it was made from."""
    if shutil.which("bash") is None or shutil.which("sha256sum") is None:
        pytest.skip("needs bash and sha256sum")
    done = subprocess.run([ROOT / "native" / "wasm" / "sources.sh"], check=True, capture_output=True, text=True)
    section = b"sources" + done.stdout.strip().encode()
    assert (PAGE / f"{module}.wasm").read_bytes().endswith(section), "run web/build.sh and commit what it writes"


def test_built_page_is_current(tmp_path: Path) -> None:
    if shutil.which("npx") is None or not (ROOT / "web" / "node_modules" / "esbuild").is_dir():
        pytest.skip("needs node, and npm ci in web/")
    command = [ROOT / "web" / "build.sh", tmp_path]
    subprocess.run(command, check=True, capture_output=True, timeout=300, env={**os.environ, "WASM": str(PAGE)})
    built = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    kept = {file.name: file.read_bytes() for file in PAGE.iterdir()}
    assert built == kept, "run web/build.sh and commit what it writes"
