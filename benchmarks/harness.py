"""What the scripts here share: flags, starting themselves as workers, and the folder of results.

A benchmark script defines ``build(name) -> Callable[[case], float]`` (seconds of one timed run) and calls ``main``. The
script starts itself once per contender (``--worker NAME``); the rest is ``squeezebert.bench.harness``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from squeezebert.bench.harness import (
    Case,
    Worker,
    cpu_name,
    interleave,
    markdown_table,
    resident_mb,
    serve,
    shown,
    versions,
)

__all__ = [
    "Case", "Worker", "arguments", "interleave", "markdown_table", "median_table", "resident_mb", "serve",
    "shown", "start_worker", "write_results",
]  # fmt: skip

RESULTS = Path(__file__).resolve().parent / "results"


def start_worker(script: str, name: str, flags: Sequence[str], threads: int) -> Worker:
    """A script as the worker of one contender."""
    return Worker(name, [sys.executable, script, "--worker", name, *flags], threads)


def write_results(what: str, title: str, body: str, data: Any, packages: Sequence[str]) -> Path:
    """Write ``results/<what>_<date>.md`` and ``.json`` with CPU, versions and the command."""
    date = datetime.date.today().isoformat()
    found = versions(packages)
    facts = {"date": date, "cpu": cpu_name(), "versions": found, "command": f"python {shown(sys.argv)}"}
    lines = [f"# {title}", "", f"{date}. {facts['cpu']}. " + ", ".join(f"{k} {v}" for k, v in found.items()) + "."]
    lines += ["", f"Command: `{facts['command']}`", "", body, ""]
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{what}_{date}.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(facts | {"data": data}, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return path


def median_table(
    seconds: dict[str, dict[str, list[float]]], ours: str, scale: float, unit: str
) -> tuple[str, dict[str, Any]]:
    """Medians of every contender, and its time over ours."""
    cases = list(next(iter(seconds.values())))
    medians = {name: {case: statistics.median(times) for case, times in by.items()} for name, by in seconds.items()}
    rows = [
        [
            name,
            *(
                f"{medians[name][case] * scale:.2f} ({medians[name][case] / medians[ours][case]:.2f}x)"
                for case in cases
            ),
        ]
        for name in seconds
    ]
    caption = f"Median {unit}; in brackets the time over that of {ours}."
    return caption + "\n\n" + markdown_table(["", *cases], rows), medians


def arguments(description: str) -> argparse.ArgumentParser:
    """Flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every contender")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds")
    return parser
