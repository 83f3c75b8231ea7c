from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from squeezebert.bench.harness import (
    Worker,
    WorkerError,
    interleave,
    markdown_table,
    resident_mb,
    shown,
    take_turns,
    versions,
)

ECHO = """
from squeezebert.bench.harness import serve
print("a library's greeting")

def run(case):
    if case.get("fail"):
        raise ValueError("it cannot be")
    print("a library's remark")
    return case["value"] + 1

serve(run)
"""


def start(name: str, log: Path | None = None) -> Worker:
    return Worker(name, [sys.executable, "-c", ECHO], threads=1, log=log)


def test_every_worker_answers_every_case_in_turn() -> None:
    workers = [start("a"), start("b")]
    cases = {"one": {"value": 1}, "two": {"value": 2}}
    turns = list(take_turns(workers, cases, rounds=2, warmup=1))
    answers = {"one": 2, "two": 3}
    assert turns == 2 * [(worker, case, answers[case]) for case in ("one", "two") for worker in ("a", "b")]
    assert interleave(workers, cases, rounds=3, warmup=0)["b"] == {"one": [2, 2, 2], "two": [3, 3, 3]}
    for worker in workers:
        worker.close()


def test_others_go_on_without_a_worker_that_fails(tmp_path: Path) -> None:
    good, bad = start("good"), start("bad", tmp_path / "log")
    reasons = {}
    cases = {"first": {"value": 1}, "second": {"value": 1, "fail": True}}
    turns = take_turns([bad], cases, rounds=1, failed=lambda worker, error: reasons.update({worker.name: str(error)}))
    assert list(turns) == [("bad", "first", 2)]
    assert reasons == {"bad": "ValueError: it cannot be"}
    bad.close()
    assert good.run({"value": 6}) == 7
    good.close()


def test_a_worker_that_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="ended with status 3"):
        Worker("none", [sys.executable, "-c", "raise SystemExit(3)"], 1, tmp_path / "log")


def test_facts() -> None:
    found = versions(["numpy", "no-such-package"])
    assert found["no-such-package"] == "not installed"
    assert found["python"].startswith(f"{sys.version_info.major}.")
    if Path("/proc/self/status").exists():
        memory = resident_mb(os.getpid())
        assert memory is not None
        assert 5 < memory < 100_000
    assert resident_mb(2**22 + 1) is None  # beyond the largest process id of Linux


def test_paths_are_shown_by_name(tmp_path: Path) -> None:
    assert shown(["squeezebert", "--data-dir", str(tmp_path), "a b"]) == f"squeezebert --data-dir {tmp_path.name} 'a b'"


def test_markdown_table() -> None:
    assert markdown_table(["", "x"], [["a", "1"]]) == "|  | x |\n| --- | --- |\n| a | 1 |"
