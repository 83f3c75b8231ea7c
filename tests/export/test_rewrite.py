from __future__ import annotations

import numpy as np
import pytest
import torch

from squeezebert import checkpoint
from squeezebert.artifact import OUTPUTS
from squeezebert.export.graph import _Traced, example
from squeezebert.export.rewrite import rewrite
from squeezebert.model.grouped import Form, GroupedLinear


def model(head: str) -> torch.nn.Module:
    torch.manual_seed(0)
    loaded = checkpoint.load("tiny", head, initializer_range=0.2, vocab_size=128, real_vocab_size=120)
    return _Traced(loaded.model, head).eval()


@pytest.mark.parametrize("head", OUTPUTS)
@pytest.mark.parametrize("form", ["conv", "split", "bmm"])
@torch.inference_mode()
def test_forms_are_equal(head: str, form: Form) -> None:
    original = model(head)
    want = original(*example())
    got = rewrite(original, form, int8_embeddings=False)(*example())
    assert len(got) == len(OUTPUTS[head])
    for mine, theirs in zip(got, want, strict=True):
        # Sums of 256 terms in another order, through two layers of norms: rounding of outputs of order one.
        torch.testing.assert_close(mine, theirs, atol=256 * torch.finfo(torch.float32).eps * 8, rtol=0)


@pytest.mark.parametrize("form", ["conv", "split"])
def test_weights_are_constants_of_plain_layers(form: Form) -> None:
    original = model("sequence_classification")
    written = rewrite(original, form, int8_embeddings=False)
    assert not any(isinstance(part, GroupedLinear) for part in written.modules())
    assert any(isinstance(part, torch.nn.Conv1d) for part in written.modules()) == (form == "conv")
    assert any(isinstance(part, GroupedLinear) for part in original.modules())  # the copy was changed, not this


@torch.inference_mode()
def test_int8_embeddings_are_off_by_half_a_step() -> None:
    original = model("encoder")
    embeddings = rewrite(original, "split", int8_embeddings=True).model.embeddings
    ids = torch.arange(128)
    want = original.model.embeddings.word(ids)
    step = want.abs().amax(dim=1, keepdim=True) / 127
    assert ((embeddings.word(ids) - want).abs() <= step / 2 * (1 + 1e-5)).all()
    assert embeddings.word.rows.dtype == torch.int8


@torch.inference_mode()
def test_the_decoder_keeps_its_own_weight() -> None:
    original = model("masked_lm")
    (want,), (got,) = original(*example()), rewrite(original, "split", int8_embeddings=True)(*example())
    np.testing.assert_array_equal(torch.isinf(got), torch.isinf(want))
    finite = torch.isfinite(want)
    # Only embeddings are rounded, to 1/254 of a row's largest value.
    assert (got - want)[finite].abs().max() < 0.05 * want[finite].abs().max()
