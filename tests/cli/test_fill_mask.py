from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from squeezebert import checkpoint
from squeezebert.cli import main


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, pretraining_corpus: Path) -> str:
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    loaded = checkpoint.load("tiny", "pretraining", vocab=pretraining_corpus, initializer_range=0.3)
    checkpoint.save(loaded.model, folder, tokenizer=loaded.tokenizer)
    return str(folder)


def test_fill_mask_prints_guesses_likeliest_first(pretrained: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill-mask", "--model", pretrained, "--top", "3", "a [MASK] [MASK] b"]) == 0
    gaps = capsys.readouterr().out.split("\n\n")
    assert len(gaps) == 2
    for gap in gaps:
        lines = gap.strip().split("\n")
        assert len(lines) == 3
        assert all(re.fullmatch(r"0\.\d{4}  [a-p.]", line) for line in lines)
        assert lines == sorted(lines, reverse=True)


def test_sentence_order_prints_both_probabilities(pretrained: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sentence-order", "--model", pretrained, "a a .", "b ."]) == 0
    found = re.fullmatch(r"(0\.\d{4})  in order\n(0\.\d{4})  swapped\n", capsys.readouterr().out)
    assert found is not None
    assert float(found[1]) + float(found[2]) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fill-mask", "--top", "0", "[MASK]"], "squeezebert: --top must be at least 1, not 0\n"),
        (["fill-mask", "no gap"], "squeezebert: the text has no gap; write [MASK] in place of a word, "),
    ],
)
def test_faults_end_with_2(pretrained: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--model", pretrained]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_missing_head_is_named(classifier_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sentence-order", "--model", str(classifier_folder), "a", "b"]) == 2
    assert "has no sentence-order head, but sequence_classification" in capsys.readouterr().err
