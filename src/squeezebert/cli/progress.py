"""How far a long command has come: one line on standard error, from the first second on."""

from __future__ import annotations

import sys
import time

from squeezebert.durations import duration


class Progress:
    """Rows done, rows a second and the time left.

    On a terminal the line is renewed every second; in a log file one is added every minute.

    Args:
        total: Rows there will be, about; None: not known.
        done: Rows that an earlier run did.
    """

    def __init__(self, total: int | None, done: int = 0) -> None:
        self._total = total
        self._before = self._rows = done
        self._terminal = sys.stderr.isatty()
        self._interval = 1.0 if self._terminal else 60.0
        self._start = self._shown = time.monotonic()
        self._width = 0

    def step(self) -> None:
        """Count one row."""
        self._rows += 1
        now = time.monotonic()
        if now - self._shown >= self._interval:
            self._shown = now
            self._show(self._line(now))

    def close(self) -> None:
        """End the line, if one was shown."""
        if self._terminal and self._width:
            self._show(self._line(time.monotonic()))
            print(file=sys.stderr)

    def _line(self, now: float) -> str:
        rate = (self._rows - self._before) / max(now - self._start, 1e-9)
        line = f"{self._rows:,} rows, {rate:,.0f} rows/s"
        if self._total is not None and self._total > self._rows and rate:
            line += f", about {duration((self._total - self._rows) / rate)} left"
        return line

    def _show(self, line: str) -> None:
        if self._terminal:
            print(f"\r{line:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(line)
        else:
            print(line, file=sys.stderr, flush=True)
