from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from squeezebert.errors import InputError
from squeezebert.files import write_json
from squeezebert.training import run_folder
from squeezebert.training.run_folder import METRICS, SETTINGS, begin, check_space, occupy


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


def test_what_a_kill_left_half_written_is_no_run(tmp_path: Path) -> None:
    (tmp_path / ".settings.json.1.tmp").write_text("{")
    (tmp_path / ".model.1.old").mkdir()
    (tmp_path / ".new-abc").mkdir()
    for resume in (False, True):
        with occupy(tmp_path, resume=resume) as finished:
            assert not finished
    (tmp_path / ".mine").touch()
    with pytest.raises(InputError, match="holds files already"), occupy(tmp_path, resume=False):
        pass


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


def test_the_value_that_differs_is_named_wherever_it_stands(tmp_path: Path) -> None:
    def phases(steps: int) -> list[dict[str, float]]:
        return [{"steps": 7, "learning_rate": 1e-3}, {"steps": steps, "learning_rate": 1e-3}]

    begin(tmp_path, {"phases": phases(5), "layers": [1, 2]}, {})
    begin(tmp_path, {"phases": phases(5), "layers": [1, 2]}, {})
    with pytest.raises(InputError, match=r": phases\.1\.steps was 5 when the run began, and is 6 now; set it back"):
        begin(tmp_path, {"phases": phases(6), "layers": [1, 2]}, {})
    with pytest.raises(InputError, match=r": layers was \[1, 2\] when the run began, and is \[1, 3\] now"):
        begin(tmp_path, {"phases": phases(5), "layers": [1, 3]}, {})


def test_space_is_asked_for_every_state_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(1000, 1000, bias=False)  # 4 MB
    # Three states of weights and two moments, one more while it is written, and one model: 13 x 4 MB.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=51_000_000))
    with pytest.raises(InputError, match="51 MB free, but the run needs 52 MB"):
        check_space(tmp_path, model, models=1, states=3)
    check_space(tmp_path, model, models=1, states=2)
