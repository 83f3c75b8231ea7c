from __future__ import annotations

import io
import sys
import time

import pytest

from squeezebert.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, rows: int, total: int | None, done: int = 0) -> str:
    """What is shown while ``rows`` rows pass, ten a second."""
    clock = iter(number / 10 for number in range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(total, done)
    for _ in range(rows):
        progress.step()
    progress.close()
    return stream.getvalue()


def test_terminal_gets_one_line_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run(monkeypatch, Terminal(), rows=25, total=1025)
    first, *_, last = shown.removesuffix("\n").split("\r")[1:]
    assert first.strip() == "10 rows, 10 rows/s, about 2 min left"
    assert last.startswith("25 rows, 10 rows/s")
    assert shown.count("\n") == 1


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, Terminal(), rows=8, total=8) == ""
    assert run(monkeypatch, io.StringIO(), rows=300, total=300) == ""


def test_log_file_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run(monkeypatch, io.StringIO(), rows=1300, total=None).splitlines()
    assert lines == ["600 rows, 10 rows/s", "1,200 rows, 10 rows/s"]


def test_rate_leaves_out_what_an_earlier_run_did(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run(monkeypatch, Terminal(), rows=11, total=None, done=5000)
    assert "5,010 rows, 10 rows/s" in shown
