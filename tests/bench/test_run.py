from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from squeezebert.bench import exports, run
from squeezebert.cli import main

pytest.importorskip("transformers")
pytest.importorskip("matplotlib")


@pytest.fixture
def command(tmp_path: Path, write_glue: Callable[..., Path]) -> list[str]:
    """A small run of two contenders."""
    exports.stand_in_tokenizer(512).save(tmp_path / "vocabulary")
    data = write_glue(tmp_path / "glue")
    words = ["bench", "--size", "tiny", "--threads", "1", "--rounds", "2", "--cases", "1x8", "qnli"]
    words += ["--contenders", "torch", "transformers-fp32-squeezebert", "openvino-bf16-bert"]
    words += ["--data-dir", str(data), "--vocab", str(tmp_path / "vocabulary"), "--cache", str(tmp_path / "cache")]
    return [*words, "--output", str(tmp_path / "out")]


@pytest.mark.slow
def test_two_contenders(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "why_not", lambda each: "not here" if each.precision == "bf16" else None)
    assert main(command) == 0
    text = capsys.readouterr().out
    assert text == (tmp_path / "out" / "bench.md").read_text()
    assert "- OpenVINO bf16, BERT-base: not here" in text.splitlines()
    values = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [each["key"] for each in values["contenders"]] == ["torch", "transformers-fp32-squeezebert"]
    for each in values["contenders"]:
        assert {case: len(times) for case, times in each["seconds"].items()} == {"1x8": 2, "qnli": 2}
        assert all(time > 0 for times in each["seconds"].values() for time in times)
    assert values["texts"] == {"qnli": 8}
    assert set(values["ratios"]) == {"fastest other SqueezeBERT"}
    assert values["contenders"][0]["file_mb"] > 0.1


@pytest.fixture
def cut_short(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes the run end with an exception after its first turn."""

    def start(job: Any, folder: Path, workers: list[Any], results: run.Results) -> None:
        workers.append(_Idle(job.contender.key))

    def prepare(end: BaseException) -> None:
        def turns(workers: list[Any], *_: Any, **__: Any) -> Iterator[tuple[str, str, float]]:
            yield workers[0].name, "1x8", 0.5
            raise end

        monkeypatch.setattr(run, "take_turns", turns)

    monkeypatch.setattr(run, "_start", start)
    monkeypatch.setattr(run, "_make", lambda *_: None)
    return prepare


def test_interrupted_run_keeps_what_it_has(
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cut_short: Callable[[BaseException], None],
) -> None:
    cut_short(KeyboardInterrupt())
    assert main(command) == 130
    assert "| squeezebert, torch engine, fp32 | **500** |" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["interrupted"] is True


def test_run_that_is_killed_has_kept_its_times(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_short: Callable[[BaseException], None]
) -> None:
    class Killed(BaseException):
        pass

    cut_short(Killed())
    monkeypatch.setattr(run, "_KEEP_EVERY", 0.0)
    with pytest.raises(Killed):
        main(command)
    kept = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert kept["interrupted"] is True
    assert kept["contenders"][0]["seconds"] == {"1x8": [0.5]}


class _Idle:
    def __init__(self, name: str) -> None:
        self.name = name

    def close(self) -> None:
        pass
