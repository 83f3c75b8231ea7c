"""The README's commands and programs run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from squeezebert.cli import build_parser, main

pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def test_first_block_holds_the_two_commands() -> None:
    first, second = BLOCKS[0][1].strip().splitlines()
    assert first.startswith("pip install -c constraints.txt . && squeezebert classify ")
    assert second == "pip install -c constraints.txt '.[dev]' && python -m pytest -n 2"


def test_first_command_then_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    _, classify = BLOCKS[0][1].splitlines()[0].split(" && ")
    assert main(shlex.split(classify)[1:]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [("positive", "film"), ("negative", "mess")]

    [program] = [text for language, text in BLOCKS if language == "python"]
    exec(compile(program, "README.md", "exec"), {})
    label, score = capsys.readouterr().out.split()
    assert label == "positive"
    assert 0.5 <= float(score) <= 1


def test_finetuning_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    finetune, classify = BLOCKS[1][1].splitlines()[:2]
    assert main(shlex.split(finetune)[1:]) == 0
    capsys.readouterr()
    assert main(shlex.split(classify)[1:]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["film", "week"]
    assert all(line.split()[0] in ("positive", "negative") for line in lines)


def test_every_other_command_has_the_flags_that_it_names() -> None:
    commands = [line for _, text in BLOCKS[1:] for line in text.splitlines() if line.startswith("squeezebert ")]
    assert len(commands) >= 8
    for command in commands:
        build_parser().parse_args(shlex.split(command)[1:])


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
