from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from squeezebert.cli import main
from squeezebert.data.glue_download import SOURCES, Source

_CONTENT = b"index\tsentence1\tsentence2\n0\ta\tb\n"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server that has the diagnostics."""
    file = tmp_path / "server" / "glue" / "data" / "AX.tsv"
    file.parent.mkdir(parents=True)
    file.write_bytes(_CONTENT)
    source = Source("glue/data/AX.tsv", len(_CONTENT), hashlib.sha256(_CONTENT).hexdigest())
    monkeypatch.setitem(SOURCES, "ax", (source,))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=tmp_path / "server"))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_download(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["glue", "download", "diagnostic", "--output", str(tmp_path / "glue"), "--base-url", url]
    assert main(command) == 0
    assert capsys.readouterr().out == f"ax: {tmp_path / 'glue' / 'diagnostic'} (fetched, SHA-256 checked)\n"
    assert (tmp_path / "glue" / "diagnostic" / "diagnostic.tsv").read_bytes() == _CONTENT
    assert main(command) == 0
    assert capsys.readouterr().out == f"ax: {tmp_path / 'glue' / 'diagnostic'} (already there)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sst5"], "there is no GLUE task 'sst5'; there are cola, sst2"),
        (["ax", "--base-url", "nowhere"], "--base-url nowhere: not an address"),
        (["wnli"], "HTTP 404"),
        (["ax", "--output", "{file}/glue"], "{file}"),
    ],
)
def test_bad_input_is_one_line(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    arguments = [argument.format(file=tmp_path / "file") for argument in arguments]
    assert main(["glue", "download", "--output", str(tmp_path / "glue"), "--base-url", url, *arguments]) == 2
    output = capsys.readouterr()
    assert message.format(file=tmp_path / "file") in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_progress_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from squeezebert.cli.glue import _Line
    from squeezebert.data.glue_download import Progress

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    line = _Line()
    line._interval = 0.0
    line.show(Progress("CoLA.zip", 1_000_000, 4_000_000, 100_000.0))
    assert capsys.readouterr().err == "\rCoLA.zip: 1.0 of 4.0 MB, 0.10 MB/s, about 30 s left"
    line.clear()
    assert set(capsys.readouterr().err) == {"\r", " "}
