"""``squeezebert glue download``: fetch the official GLUE files."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from squeezebert.data.glue_download import BASE_URL, Progress, download
from squeezebert.data.tasks import GLUE, get_task
from squeezebert.durations import duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    fetch = actions.add_parser(
        "download",
        help="fetch the official files",
        description="Fetch the official files and check them. Interrupted, it goes on where it stopped. The data sets "
        "keep the terms of their makers.",
    )
    fetch.add_argument("tasks", nargs="*", metavar="TASK", help=f"what to fetch: {', '.join(GLUE)} (all)")
    fetch.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for the files, one folder a task"
    )
    fetch.add_argument(
        "--base-url", default=BASE_URL, help=f"server that has the files under the same paths ({BASE_URL})"
    )


def run(args: argparse.Namespace) -> None:
    """Fetch, and say of each task where it is."""
    line = _Line()
    try:
        for fetched in download(
            [get_task(name) for name in args.tasks], args.output, base_url=args.base_url, progress=line.show
        ):
            line.clear()
            state = "already there" if fetched.was_there else "fetched, SHA-256 checked"
            print(f"{fetched.task.name}: {fetched.folder} ({state})", flush=True)
    finally:
        line.clear()


class _Line:
    """Progress on standard error: renewed every half second on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._interval = 0.5 if self._terminal else 10.0
        self._shown = time.monotonic()
        self._width = 0

    def show(self, progress: Progress) -> None:
        """Show how far a transfer is, if it is time to."""
        if time.monotonic() - self._shown < self._interval:
            return
        self._shown = time.monotonic()
        text = (
            f"{progress.file}: {progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB, "
            f"{progress.bytes_per_second / 1e6:.2f} MB/s, about {duration(progress.seconds_left)} left"
        )
        if self._terminal:
            print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self._width:
            print(f"\r{'':{self._width}}\r", end="", file=sys.stderr, flush=True)
            self._width = 0
