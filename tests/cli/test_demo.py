from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from squeezebert.cli import main
from squeezebert.cli.demo import make_server
from squeezebert.export import web


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    for name in web.MODEL_FILES:
        (tmp_path / name).write_text(name)
    (tmp_path / "secret.txt").write_text("secret")
    with make_server(web.PAGE, tmp_path, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


def test_serves_page_and_model(address: str) -> None:
    with urllib.request.urlopen(f"{address}/", timeout=30) as response:
        assert b"SqueezeBERT" in response.read()
        # What browsers ask of a page that uses threads.
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    with urllib.request.urlopen(f"{address}/squeezebert.wasm", timeout=30) as response:
        assert response.headers["Content-Type"] == "application/wasm"
    with urllib.request.urlopen(f"{address}/model/config.json", timeout=30) as response:
        assert response.read() == b"config.json"


@pytest.mark.parametrize("path", ["/model/secret.txt", "/model/", "/../cli/demo.py", "/%2e%2e/cli/demo.py"])
def test_serves_nothing_else(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + path, timeout=30)


def test_bad_arguments(tmp_path: Path, classifier_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--model", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        assert main(["demo", "--model", str(classifier_folder), "--port", port, "--no-browser"]) == 2
    assert f"--port {port}" in capsys.readouterr().err
    assert main(["demo", "--model", str(classifier_folder), "--port", "70000", "--no-browser"]) == 2
