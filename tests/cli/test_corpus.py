from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from squeezebert.cli import main
from squeezebert.data.shards import Corpus
from squeezebert.tokenizer import SPECIAL_TOKENS, Tokenizer

TEXTS = [
    "The river sees the house. The boat leaves!\n\nWinter finds the garden of Dr. Hale. The house forgets the winter.",
    "The letter leaves the window. The doctor follows the fisher? The boat leaves the river. The house is a house.",
    "The letter leaves the window. The doctor follows the fisher? The boat leaves the river. The house is a house.",
]
# A token for each letter, "the" and each mark: 17 + 12 + 28 + 21 in the first, 21 + 22 + 18 + 15 in the second.


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*SPECIAL_TOKENS, ".", "!", "?", "the", *letters, *(f"##{letter}" for letter in letters)]
    Tokenizer.from_vocab(tokens).save(tmp_path / "vocabulary")
    return str(tmp_path / "vocabulary")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def build(source: Path, output: Path, vocabulary: str, *more: str) -> int:
    arguments = ["corpus", "build", str(source), "--output", str(output), "--vocab", vocabulary, *more]
    return main(arguments)


def test_build_then_inspect(tmp_path: Path, source: Path, vocabulary: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(source, tmp_path / "c", vocabulary, "--held-out", "0") == 0
    printed = capsys.readouterr().out
    assert "train                  2             8             154\n" in printed
    assert "left out: 1 duplicates, 0 in another language, 0 empty" in printed
    corpus = Corpus.open(tmp_path / "c")
    assert (corpus.n_documents, corpus.n_sentences, corpus.n_tokens) == (2, 8, 154)

    assert main(["corpus", "inspect", str(tmp_path / "c")]) == 0
    printed = capsys.readouterr().out
    assert "all 8 files match their SHA-256" in printed
    assert "tokens of a document          77.0        76        76        78        78" in printed
    assert "     2  winter finds the garden of dr. hale." in printed

    assert main(["corpus", "inspect", str(tmp_path / "c"), "--document", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "document 1 of train: 4 sentences, 76 tokens",
        "     0  the letter leaves the window.",
        "     1  the doctor follows the fisher?",
        "     2  the boat leaves the river.",
        "     3  the house is a house.",
    ]


def test_a_second_build_says_that_it_was_complete(
    tmp_path: Path, source: Path, vocabulary: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(source, tmp_path / "c", vocabulary) == 0
    capsys.readouterr()
    assert build(source, tmp_path / "c", vocabulary) == 0
    assert "was complete already" in capsys.readouterr().out
    assert build(source, tmp_path / "c", vocabulary, "--no-duplicate-filter") == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "documents"),
    [
        ([], 2),
        (["--no-duplicate-filter"], 3),
        (["--language", "de"], 0),
        (["--language", "de", "--no-language-filter"], 2),
        (["--text-field", "body"], None),
        (["--held-out", "2"], None),
        (["--processes", "0"], None),
    ],
)
def test_flags(
    tmp_path: Path,
    source: Path,
    vocabulary: str,
    flags: list[str],
    documents: int | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = build(source, tmp_path / "c", vocabulary, *flags)
    if documents is None:
        assert status == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    else:
        assert status == 0
        manifest = Corpus.open(tmp_path / "c").manifest
        assert sum(counts.documents for counts in manifest.splits.values()) == documents


def test_txt_flags(tmp_path: Path, vocabulary: str) -> None:
    (tmp_path / "a.txt").write_text("The river sees\nthe house. The boat\nleaves.\n\nThe end.\n")
    for name, flags, documents, sentences in (
        ("lines", [], 2, 5),
        ("joined", ["--join-lines"], 2, 3),
        ("file", ["--join-lines", "--txt-documents", "file"], 1, 3),
    ):
        assert build(tmp_path / "a.txt", tmp_path / name, vocabulary, "--held-out", "0", *flags) == 0
        corpus = Corpus.open(tmp_path / name)
        assert (corpus.n_documents, corpus.n_sentences) == (documents, sentences)


def test_inspect_refuses_in_one_line(
    tmp_path: Path, source: Path, vocabulary: str, capsys: pytest.CaptureFixture[str]
) -> None:
    build(source, tmp_path / "c", vocabulary, "--held-out", "0")
    capsys.readouterr()
    assert main(["corpus", "inspect", str(tmp_path / "c"), "--document", "2"]) == 2
    assert "no document 2 in train; there are 2, from 0 on" in capsys.readouterr().err
    shard = tmp_path / "c" / "train-00000.tokens.bin"
    data = bytearray(shard.read_bytes())
    data[7] ^= 4
    shard.write_bytes(data)
    assert main(["corpus", "inspect", str(tmp_path / "c")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "train-00000.tokens.bin: SHA-256 differs" in line
    assert main(["corpus", "inspect", str(tmp_path)]) == 2
    assert "no manifest.json" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size")
def test_a_disk_that_takes_no_more_is_one_line_and_loses_nothing(tmp_path: Path, source: Path, vocabulary: str) -> None:
    source.write_text("".join(json.dumps({"text": f"The {n}th. {TEXTS[0]}"}) + "\n" for n in range(2000)))
    command = [sys.executable, "-m", "squeezebert", "corpus", "build", str(source), "--vocab", vocabulary]
    command += ["--output", str(tmp_path / "c"), "--no-language-filter"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    full = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=60)
    assert full.returncode == 2
    (line,) = full.stderr.splitlines()
    assert "c.partial/0000000-" in line
    assert "File too large" in line
    assert not (tmp_path / "c").exists()
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert main(["corpus", "inspect", str(tmp_path / "c")]) == 0
