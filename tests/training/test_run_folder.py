from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from squeezebert.errors import InputError
from squeezebert.files import write_json
from squeezebert.training import run_folder
from squeezebert.training.run_folder import METRICS, SETTINGS, begin, occupy


def test_a_second_run_is_kept_out_until_the_first_ends(tmp_path: Path) -> None:
    with occupy(tmp_path / "run", resume=False) as finished:
        assert not finished
        with (
            pytest.raises(InputError, match="another run is at work in this folder"),
            occupy(tmp_path / "run", resume=True),
        ):
            pass
        write_json(tmp_path / "run" / SETTINGS, {})
        write_json(tmp_path / "run" / METRICS, {})
    assert {path.name for path in (tmp_path / "run").iterdir()} == {SETTINGS, METRICS}
    with occupy(tmp_path / "run", resume=True) as finished:
        assert finished


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from squeezebert.training.run_folder import occupy
with occupy(Path({str(tmp_path)!r}) / "run", resume=False):
    print("at work", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
        with pytest.raises(InputError, match="another run"), occupy(tmp_path / "run", resume=False):
            pass
        process.send_signal(signal.SIGKILL)
    with occupy(tmp_path / "run", resume=False) as finished:
        assert not finished


def test_what_fails_before_it_begins_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), occupy(tmp_path / "runs" / "mine", resume=False):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_lock_whose_file_is_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock

    def end_first_run(file: Any, how: int) -> None:
        (tmp_path / ".lock").unlink()
        flock(file, how)

    monkeypatch.setattr("fcntl.flock", end_first_run)
    with pytest.raises(InputError, match="another run"), occupy(tmp_path, resume=False):
        pass


def test_without_locks_runs_are_checked_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "fcntl", None)
    with occupy(tmp_path, resume=False), occupy(tmp_path, resume=False):
        (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files already"), occupy(tmp_path, resume=False):
        pass


def test_long_values_are_cut(tmp_path: Path) -> None:
    labels = [f"label {number}" for number in range(1000)]
    begin(tmp_path, {"labels": labels}, {})
    with pytest.raises(InputError, match=r"labels was .'label 0', .* and is .*; set it back") as error:
        begin(tmp_path, {"labels": labels[1:]}, {})
    assert len(str(error.value)) < 800
