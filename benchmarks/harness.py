"""Compares programs fairly: each in its own process, taking turns, medians and ratios, with versions and CPU.

A benchmark script defines ``build(name) -> Callable[[case], float]`` (seconds of one timed run) and calls ``main``. The
script starts itself once per contender (``--worker NAME``); a worker answers one JSON case a line with its seconds.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
Case = dict[str, Any]
_PAUSE = 0.05
"""Seconds before a turn, in which the threads of the contender before stop spinning."""


def cpu_name() -> str:
    """Model name and the instruction sets that matter here."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    known = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8")
    sets = " ".join(name for name in known if name in fields.get("flags", "").split())
    return f"{fields.get('model name', 'unknown')} (family {fields.get('cpu family')}), {os.cpu_count()} cores, {sets}"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions of the packages, with Python's."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def serve(run: Callable[[Case], float]) -> None:
    """Answer cases from standard input until it ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)


class Worker:
    """One contender in its own process."""

    def __init__(self, script: str, name: str, arguments: Sequence[str], threads: int) -> None:
        self.name = name
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "TRANSFORMERS_VERBOSITY": "error",
            "TQDM_DISABLE": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, script, "--worker", name, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self._answer("ready")

    def _answer(self, expected: str | None = None) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if expected is not None:
                if line.strip() == expected:
                    return expected
                continue
            try:
                float(line)
            except ValueError:
                continue  # something a library printed
            return line
        raise SystemExit(f"benchmark: {self.name} ended with status {self.process.wait()}")

    def run(self, case: Case) -> float:
        """Seconds of one timed run."""
        assert self.process.stdin is not None
        time.sleep(_PAUSE)
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def interleave(
    workers: Sequence[Worker], cases: dict[str, Case], rounds: int, warmup: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds by contender and case; in every round each contender takes its turn."""
    seconds: dict[str, dict[str, list[float]]] = {worker.name: {case: [] for case in cases} for worker in workers}
    start = time.monotonic()
    for number in range(-warmup, rounds):
        for name, case in cases.items():
            for worker in workers:
                elapsed = worker.run(case)
                if number >= 0:
                    seconds[worker.name][name].append(elapsed)
        done = number + warmup + 1
        eta = (time.monotonic() - start) / done * (rounds + warmup - done)
        print(f"\rround {done} of {rounds + warmup}, {eta:.0f} s left ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return seconds


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def write_results(what: str, title: str, body: str, data: Any, packages: Sequence[str]) -> Path:
    """Write ``results/<what>_<date>.md`` and ``.json`` with CPU, versions and the command."""
    date = datetime.date.today().isoformat()
    # Where the data lay is nobody's concern: a path is shown by its name.
    words = [Path(word).name if number and Path(word).exists() else word for number, word in enumerate(sys.argv)]
    command = "python " + " ".join(words)
    facts = {"date": date, "cpu": cpu_name(), "versions": versions(packages), "command": command}
    lines = [
        f"# {title}",
        "",
        f"{date}. {facts['cpu']}. " + ", ".join(f"{k} {v}" for k, v in facts["versions"].items()) + ".",
    ]
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
