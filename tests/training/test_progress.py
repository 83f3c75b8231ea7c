from __future__ import annotations

import os
from pathlib import Path

import pytest

from squeezebert.training.progress import Reporter, read_log

_FIGURES = {"loss": 0.5, "learning_rate": 3e-5, "examples_per_second": 100.0, "tokens_per_second": 1300.0}


def _report(folder: Path) -> None:
    reporter = Reporter(folder, title="seed 1", total_steps=20, steps_per_epoch=10)
    reporter.training(10, _FIGURES)
    reporter.evaluation(10, {"dev": {"f1": 0.25}}, best=True)
    reporter.training(20, _FIGURES)
    reporter.close()


def test_in_a_file_lines_follow_one_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _report(tmp_path)
    said = capsys.readouterr().err
    assert "\r" not in said
    assert said.splitlines() == [
        "seed 1  epoch 1  step 10  dev f1 0.2500  (best)",
        "seed 1  epoch 2.00  step 20/20  loss 0.5000  lr 3.00e-05  100 examples/s  1,300 tokens/s  0 s left"
        "  dev f1 0.2500",
    ]


def test_on_a_terminal_one_line_is_renewed_within_its_width(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    _report(tmp_path)
    said = capsys.readouterr().err
    assert "\rseed 1  epoch 2.00  step 20/20  loss 0.5000" in said
    assert all(len(part) < 60 for part in said.replace("\n", "\r").split("\r"))


def test_only_the_first_process_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(tmp_path, title="seed 1", total_steps=20, steps_per_epoch=10, enabled=False)
    reporter.training(20, _FIGURES)
    reporter.say("something")
    reporter.close()
    assert capsys.readouterr().err == ""
    assert not list(tmp_path.iterdir())


def test_what_was_logged_beyond_the_state_is_dropped(tmp_path: Path) -> None:
    _report(tmp_path)
    assert [line["step"] for line in read_log(tmp_path)] == [10, 10, 20]
    Reporter(tmp_path, title="seed 1", total_steps=20, steps_per_epoch=10, first_step=10).close()
    assert [line["step"] for line in read_log(tmp_path)] == [10, 10]
