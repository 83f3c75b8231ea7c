from __future__ import annotations

from pathlib import Path

import pytest
import torch

from squeezebert import checkpoint
from squeezebert.errors import InputError
from squeezebert.runtime.engines.choice import load_masked_lm
from squeezebert.runtime.fill_mask import fill_mask
from squeezebert.runtime.pretrained import in_order_probability, load_pretrained
from squeezebert.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, pretraining_corpus: Path) -> Path:
    """A model of random weights, drawn wide, whose vocabulary is padded from 22 tokens to 64 rows."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    loaded = checkpoint.load("tiny", "pretraining", vocab=pretraining_corpus, initializer_range=0.3)
    checkpoint.save(loaded.model, folder, tokenizer=loaded.tokenizer)
    return folder


def test_guesses_are_the_likeliest_ordinary_tokens_of_each_gap(pretrained: Path) -> None:
    from transformers import SqueezeBertForMaskedLM

    guesses = fill_mask(load_masked_lm(pretrained, engine="torch"), "a [MASK] b . [MASK] c", top=3)
    tokenizer = Tokenizer.load(pretrained)
    ids = tokenizer.encode("a [MASK] b . [MASK] c").input_ids
    reference = SqueezeBertForMaskedLM.from_pretrained(pretrained).eval()
    with torch.no_grad():
        logits = reference(torch.tensor([ids])).logits[0, [2, 5], : tokenizer.vocab_size]
    logits[:, sorted(tokenizer.special_ids)] = float("-inf")
    best = logits.softmax(-1).topk(3)
    assert [[guess.token for guess in gap] for gap in guesses] == [
        [tokenizer.id_to_token(index) for index in row] for row in best.indices.tolist()
    ]
    for gap, row in zip(guesses, best.values.tolist(), strict=True):
        assert [guess.probability for guess in gap] == pytest.approx(row, abs=1e-5)


def test_more_guesses_than_tokens_are_all_tokens(pretrained: Path) -> None:
    (gap,) = fill_mask(load_masked_lm(pretrained, engine="torch"), "[MASK]", top=1000)
    assert sorted(guess.token for guess in gap) == sorted([".", *"abcdefghijklmnop"])
    assert sum(guess.probability for guess in gap) == pytest.approx(1.0)


def test_order_is_the_head_s_first_class(pretrained: Path) -> None:
    loaded = load_pretrained(pretrained, "pretraining")
    encoding = Tokenizer.load(pretrained).encode("a a .", "b b b .")
    with torch.no_grad():
        output = loaded.model(
            torch.tensor([encoding.input_ids]), token_type_ids=torch.tensor([encoding.token_type_ids])
        )
    expected = output.sentence_order_logits.softmax(-1)[0, 0].item()
    assert in_order_probability(loaded, "a a .", "b b b .") == pytest.approx(expected, abs=1e-6)
    assert in_order_probability(loaded, "b b b .", "a a .") != pytest.approx(expected, abs=1e-3)


def test_faults_are_told_in_one_line(pretrained: Path, classifier_folder: Path, tmp_path: Path) -> None:
    loaded = load_pretrained(pretrained, "pretraining")
    with pytest.raises(InputError, match=r"has no gap; write \[MASK\]"):
        fill_mask(load_masked_lm(pretrained, engine="torch"), "a b")
    with pytest.raises(InputError, match="more than the 512 tokens"):
        fill_mask(load_masked_lm(pretrained, engine="torch"), "[MASK]" + " a" * 510)
    with pytest.raises(InputError, match="more than the 512 tokens"):
        in_order_probability(loaded, "a " * 255, "b " * 255)
    with pytest.raises(InputError, match="has no masked language model's head, but sequence_classification"):
        load_pretrained(classifier_folder, "masked_lm")
    with pytest.raises(InputError, match="base: a size name stands for random weights"):
        load_pretrained("base", "masked_lm")
    masked = checkpoint.load(pretrained, "masked_lm")
    checkpoint.save(masked.model, tmp_path / "masked")
    with pytest.raises(InputError, match="has no sentence-order head, but masked_lm"):
        load_pretrained(tmp_path / "masked", "pretraining")
    with pytest.raises(InputError, match=r"has no vocabulary; put its vocab\.txt there"):
        load_masked_lm(tmp_path / "masked", engine="torch")
