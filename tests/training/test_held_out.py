from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import binomtest

from squeezebert import checkpoint
from squeezebert.data.masking import Masking, Vocabulary
from squeezebert.data.shards import Corpus
from squeezebert.tokenizer import Tokenizer
from squeezebert.training.held_out import score_held_out, wilson_interval
from squeezebert.training.loop import make_accelerator
from squeezebert.training.pretrain import held_out_source


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (5, 10), (1063, 2048), (10, 10), (0, 500)])
def test_interval_is_scipy_s(right: int, total: int) -> None:
    expected = binomtest(right, total).proportion_ci(0.95, "wilson")
    assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_figures_are_those_of_whole_sequences(pretraining_corpus: Path) -> None:
    torch.manual_seed(0)
    model = checkpoint.load("tiny", "pretraining", vocab=pretraining_corpus, initializer_range=0.3).model
    vocabulary = Vocabulary.from_tokenizer(Tokenizer.load(pretraining_corpus))
    source = held_out_source(
        Corpus.open(pretraining_corpus, "held_out"), vocabulary, length=32, masking=Masking(), mlm_only=False
    )
    accelerator = make_accelerator("cpu")
    figures = score_held_out(model, source, accelerator, rows=33, precision="fp32")["held_out"]
    assert figures == score_held_out(model, source, accelerator, rows=64, precision="fp32")["held_out"]

    losses, right, order_losses, order_right = [], [], [], []
    for step in range(2):
        batch = source.batch(step)
        mask = None if batch.attention_mask is None else torch.from_numpy(batch.attention_mask)
        with torch.no_grad():
            output = model(torch.from_numpy(batch.input_ids), mask, torch.from_numpy(batch.token_type_ids))
        scores = output.logits.flatten(0, 1).numpy()[batch.masked_positions]
        rows = np.arange(len(scores))
        losses += (-log_softmax(scores, axis=1)[rows, batch.masked_labels]).tolist()
        right += (scores.argmax(1) == batch.masked_labels).tolist()
        order, labels = output.sentence_order_logits.numpy(), batch.sentence_order_labels
        assert labels is not None
        order_losses += (-log_softmax(order, axis=1)[np.arange(len(order)), labels]).tolist()
        order_right += (order.argmax(1) == labels).tolist()
    assert figures["mlm_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert figures["mlm_accuracy"] == pytest.approx(np.mean(right))
    assert figures["pseudo_perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert figures["sentence_order_accuracy"] == pytest.approx(np.mean(order_right))
    assert figures["loss"] == pytest.approx(np.mean(losses) + np.mean(order_losses), rel=1e-5)
    assert figures["sentence_order_low"] < figures["sentence_order_accuracy"] < figures["sentence_order_high"]
