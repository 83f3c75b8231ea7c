from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from squeezebert.cli import main
from squeezebert.tokenizer import Tokenizer


def test_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("a fine film\na dull film\n", encoding="utf-8")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"fine, fine\n"))
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt.gz")]
    output = tmp_path / "out"
    assert main(["vocab", "learn", *files, "--output", str(output), "--vocab-size", "40"]) == 0
    learned = Tokenizer.load(output)
    assert capsys.readouterr().out == f"learned {learned.vocab_size} tokens -> {output}\n"
    assert learned.decode(learned.encode("Fine film").input_ids) == "fine film"
    assert len(learned.encode("fine").input_ids) == 3
    # "dull" comes once only.
    assert len(learned.encode("dull").input_ids) > 3
    arguments = ["vocab", "learn", *files, "--output", str(output), "--vocab-size", "60", "--min-frequency", "1"]
    assert main(arguments) == 0
    assert len(Tokenizer.load(output).encode("dull").input_ids) == 3


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (b"fine\nfi\xffne\n", [], "text:2: byte 3"),
        (b"", [], "text: the file is empty"),
        (b" \n", [], "no text to learn"),
        (b"fine\n", ["--vocab-size", "6"], "vocab_size 6 cannot hold"),
        (b"fine\n", ["--min-frequency", "0"], "min_frequency must be at least 1"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, flags: list[str], message: str
) -> None:
    (tmp_path / "text").write_bytes(content)
    assert main(["vocab", "learn", str(tmp_path / "text"), "--output", str(tmp_path / "out"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("fine fine\n", encoding="utf-8")
    assert main(["vocab", "learn", str(tmp_path / "text"), "--output", str(tmp_path / "text")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "text").read_text(encoding="utf-8") == "fine fine\n"
