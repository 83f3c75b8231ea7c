"""``squeezebert demo``: the page that runs a classifier in the browser, served on this machine."""

from __future__ import annotations

import argparse
import errno
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from squeezebert import artifact
from squeezebert.errors import InputError
from squeezebert.runtime import models

_TYPES = {
    **SimpleHTTPRequestHandler.extensions_map,
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".safetensors": "application/octet-stream",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        default=models.DEFAULT,
        help=f"a finetuned model: checkpoint, hub id, or folder exported as native ({models.DEFAULT})",
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port; 0: any free one (8000)")
    parser.add_argument("--no-browser", action="store_true", help="only serve; do not open the browser")


def run(args: argparse.Namespace) -> None:
    """Serve until interrupted."""
    with page_server(args.model, args.port) as server:
        address = f"http://localhost:{server.server_port}/"
        print(f"Serving {args.model} at {address} (Ctrl-C ends)", flush=True)
        if not args.no_browser:
            webbrowser.open(address)
        server.serve_forever()


@contextmanager
def page_server(source: str, port: int) -> Iterator[ThreadingHTTPServer]:
    """A server of the page with a model, for this machine alone.

    Args:
        source: Name of a model that ships, checkpoint, hub id, or folder exported as native.
        port: Port; 0 for any free one.

    Raises:
        InputError: The model is none that the page takes, or the port is not to be had.
    """
    from squeezebert.export import native, web

    found = models.find(source)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(found)
        if not artifact.is_artifact(found):
            model = Path(scratch) / web.MODEL
            native.export(found, model)
        web.check_model(model, found)
        with make_server(web.PAGE, model, port) as server:
            yield server


def make_server(page: Path, model: Path, port: int) -> ThreadingHTTPServer:
    """A server for this machine alone.

    Args:
        page: Folder of the page.
        model: Folder that it finds as ``model/``.
        port: Port; 0 for any free one.

    Raises:
        InputError: The port is not to be had.
    """
    if not 0 <= port < 65536:
        raise InputError(f"--port {port}: ports run from 0 to 65535")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, page, model))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise InputError(f"--port {port}: {error.strerror}; give another, or 0 for any free one") from None


class _Handler(SimpleHTTPRequestHandler):
    """Files of two folders, with the headers that give a page threads."""

    extensions_map = _TYPES

    def __init__(self, page: Path, model: Path, *args: object) -> None:
        self._model = model
        super().__init__(*args, directory=str(page))  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        """The file that a path of the site stands for."""
        from squeezebert.export.web import MODEL, MODEL_FILES

        for name in MODEL_FILES:
            if path.split("?", 1)[0] == f"/{MODEL}/{name}":
                return str(self._model / name)
        return super().translate_path(path)

    def end_headers(self) -> None:
        """Isolate the page, which browsers ask of one that uses threads."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: object) -> None:
        """No listings."""
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""
