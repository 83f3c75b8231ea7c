from __future__ import annotations

from pathlib import Path

import pytest

from squeezebert.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "8y128"], "--cases: '8y128' is neither rows x tokens"),
        (["--cases", "1x600"], "--cases: 1x600 needs"),
        (["--cases", "sst2", "--vocab", "v"], "--cases: sst2 is run on texts; give --data-dir"),
        (["--cases", "sst2", "--data-dir", "d"], "--cases: sst2 is run on texts; give --vocab"),
        (["--contenders", "tflite"], "--contenders: nobody is called 'tflite'; there are"),
        (["--size", "huge"], "--size: 'huge' is unknown; use one of base, small, tiny"),
        (["--threads", "0"], "--threads must be at least 1, not 0"),
        (["--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["--contenders", "torch", "--size", "tiny", "--vocab", "nowhere.txt"], "nowhere.txt: no such file"),
        (["--output", "file"], "file: this is a file; --output names a folder"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["bench", "--cache", "cache", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"squeezebert: {message}")
    assert captured.err.count("\n") == 1
    assert not Path("cache").exists()
