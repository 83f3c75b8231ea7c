from __future__ import annotations

from pathlib import Path

import pytest

from squeezebert.cli import main

_TINY = ["--size", "tiny", "--device", "cpu", "--set", "phases.0.steps=2", "phases.0.batch_size=4", "precision=fp32"]


def test_train_stop_resume_and_evaluate(
    pretraining_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    command = ["pretrain", "--corpus", str(pretraining_corpus), "--recipe", "laptop", "--output", run, *_TINY]
    command += ["held_out_rows=32"]
    assert main([*command, "--max-minutes", "1e-9"]) == 0
    streams = capsys.readouterr()
    assert streams.out == f"model so far: {run}\n"
    assert "stopped after step 1 of 2" in streams.err
    assert f"go on with: squeezebert pretrain --corpus {pretraining_corpus} --recipe laptop --size tiny" in streams.err
    assert main(command) == 2
    assert "add --resume to go on with its run" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    figures = capsys.readouterr().out
    assert figures.endswith(f"model: {run}\n")

    assert main(["pretrain", "evaluate", run, "--corpus", str(pretraining_corpus), "--rows", "32"]) == 0
    rows = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert set(rows) >= {"mlm_loss", "mlm_accuracy", "pseudo_perplexity", "sentence_order_accuracy"}
    assert f"mlm_loss {rows['mlm_loss']}" in figures


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "x"], "pretrain needs --recipe and --output"),
        (["--recipe", "laptop"], "pretrain needs --recipe and --output"),
        (["--recipe", "unknown", "--output", "x"], "recipe 'unknown' is unknown; use one of "),
        (["--recipe", "laptop", "--output", "x", "--set", "step=1"], "recipe: step is unknown; the names are "),
        (["--recipe", "laptop", "--output", "x", "--size", "huge"], "size 'huge' is unknown; use one of base, small"),
        (["--recipe", "laptop", "--output", "x", "--rows", "1"], "--rows goes with pretrain evaluate"),
        (["--recipe", "laptop", "--output", "x", "--max-minutes", "0"], "max_minutes must be above 0, not 0"),
        (["--recipe", "laptop", "--output", "x"], "nowhere: not a corpus folder"),
        (["evaluate"], "pretrain evaluate needs the folder of a run"),
        (["evaluate", "run", "--set", "seed=1"], "--set goes with training"),
        (["evaluate", "run", "--max-minutes", "3"], "--max-minutes goes with training"),
        (["evaluate", "run", "--rows", "0"], "--rows must be at least 1, not 0"),
    ],
)
def test_faults_are_told_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", *words, "--corpus", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"squeezebert: {message}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
