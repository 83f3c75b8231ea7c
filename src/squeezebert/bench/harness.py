"""Compares programs fairly: each in its own process, taking turns; and says on what machine. Standard library only.

A worker is a process that calls :func:`serve`: it answers requests, one JSON text a line, with one line each. Only one
worker computes at a time, and before each turn there is a pause, in which the threads of the one before stop spinning.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from squeezebert.durations import duration

Case = dict[str, Any]
"""A request, ready for JSON."""

_ANSWER = "answer "  # opens a worker's lines, beside which libraries may print their own
_PAUSE = 0.05  # seconds before a turn
_PATIENCE = 10  # seconds that a worker has to end
_FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "i8mm")


class WorkerError(RuntimeError):
    """A worker ended before its time."""


def serve(run: Callable[[Case], Any]) -> None:
    """Answer requests from standard input until it ends."""
    print(f"{_ANSWER}null", flush=True)
    for line in sys.stdin:
        print(f"{_ANSWER}{json.dumps(run(json.loads(line)))}", flush=True)


class Worker:
    """One contender in its own process; made, it is ready for requests.

    Args:
        name: Of the contender.
        command: Words of the command that starts it.
        threads: Cores that its libraries may use.
        log: File for what it writes to standard error; None: this process's own.

    Raises:
        WorkerError: It ended before it was ready.
    """

    def __init__(self, name: str, command: Sequence[str], threads: int, log: Path | None = None) -> None:
        self.name = name
        self._log = log
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "TRANSFORMERS_VERBOSITY": "error",
            "TQDM_DISABLE": "1",
        }
        stderr = None if log is None else log.open("w", encoding="utf-8")
        try:
            # In a session of its own, Ctrl-C reaches the caller only, who then keeps what there is.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment,
                start_new_session=True,
            )  # fmt: skip
        finally:
            if stderr is not None:
                stderr.close()
        self._answer()

    def run(self, case: Case) -> Any:
        """The answer to a request.

        Raises:
            WorkerError: The process has ended.
        """
        assert self._process.stdin is not None
        time.sleep(_PAUSE)
        try:
            self._process.stdin.write(json.dumps(case) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its end is told below
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(_PATIENCE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_ANSWER):
                return json.loads(line.removeprefix(_ANSWER))
        status = self._process.wait()
        self.close()
        raise WorkerError(f"ended with status {status}" if self._log is None else last_line(self._log, status))


def say(text: str) -> None:
    """Tell the user how far it is, on standard error."""
    print(text, file=sys.stderr, flush=True)


def last_line(log: Path, status: int) -> str:
    """What a process that failed said last, else its exit status."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else f"ended with status {status}"


def take_turns(
    workers: Sequence[Worker],
    cases: Mapping[str, Case],
    rounds: int,
    warmup: int = 0,
    *,
    failed: Callable[[Worker, WorkerError], None] | None = None,
) -> Iterator[tuple[str, str, Any]]:
    """Ask every worker for every case, round by round, and tell on standard error how far it is.

    Args:
        workers: The contenders.
        cases: Name -> request.
        rounds: Answers of each worker to each case.
        warmup: Rounds before, whose answers are dropped.
        failed: Told of a worker that ended, which the others go on without; None: the error is raised.

    Yields:
        Worker's name, case's name and answer.
    """
    working = list(workers)
    status = _Status((rounds + warmup) * len(cases) * len(working))
    for number in range(-warmup, rounds):
        for name, case in cases.items():
            for worker in list(working):
                try:
                    answer = worker.run(case)
                except WorkerError as error:
                    if failed is None:
                        raise
                    failed(worker, error)
                    working.remove(worker)
                    continue
                finally:
                    status.step(f"round {number + warmup + 1} of {rounds + warmup}, {name}")
                if number >= 0:
                    yield worker.name, name, answer
    status.close()


class _Status:
    """Turns done and the time left: one line that is renewed on a terminal, a line a minute elsewhere."""

    def __init__(self, turns: int) -> None:
        self._turns = turns
        self._done = 0
        self._start = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def step(self, where: str) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._shown < (0.5 if self._terminal else 60):
            return
        self._shown = now
        left = (now - self._start) / self._done * (self._turns - self._done)
        line = f"{where}, about {duration(left)} left"
        print(
            f"\r{line:<60}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr, flush=True
        )

    def close(self) -> None:
        if self._terminal:
            print(f"\r{'':<60}\r", end="", file=sys.stderr, flush=True)


def interleave(
    workers: Sequence[Worker], cases: Mapping[str, Case], rounds: int, warmup: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds by contender and case; in every round each contender takes its turn."""
    seconds: dict[str, dict[str, list[float]]] = {worker.name: {case: [] for case in cases} for worker in workers}
    for name, case, answer in take_turns(workers, cases, rounds, warmup):
        seconds[name][case].append(answer)
    return seconds


def cpu_features() -> list[str]:
    """The CPU's instruction sets that matter here, by the names that Linux has for them."""
    fields = _cpuinfo()
    present = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    return [name for name in _FEATURES if name in present]


def cpu_name() -> str:
    """Model name, cores, and the instruction sets that matter here."""
    fields = _cpuinfo()
    if not fields:
        return platform.processor() or platform.machine()
    name = f"{fields.get('model name', platform.machine())} (family {fields.get('cpu family', 'unknown')})"
    return f"{name}, {os.cpu_count()} cores, {' '.join(cpu_features())}"


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions of the packages, with Python's."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def resident_mb(process: int | str = "self") -> float | None:
    """Resident memory of a process, in 10^6 bytes; None if it has ended, or this system has no /proc."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6 if "VmRSS" in fields else None


def shown(words: Sequence[str]) -> str:
    """A command for a report. Where data lay is nobody's concern: a path is shown by its name."""
    return shlex.join(Path(word).name if number and Path(word).exists() else word for number, word in enumerate(words))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
