from __future__ import annotations

import pytest
import torch
from torch import nn

from squeezebert.model.attention import Layout, SelfAttention
from squeezebert.model.config import ModelConfig
from squeezebert.model.squeezebert import initialize


@pytest.mark.parametrize("masked", [False, True])
def test_bf16_on_a_cpu_follows_fp32(masked: bool) -> None:
    """Forward and backward pass stay within bf16's rounding of fp32, with and without padding."""
    config = ModelConfig(hidden_size=64, num_attention_heads=4, intermediate_size=64, attention_probs_dropout_prob=0.0)
    torch.manual_seed(0)
    attention = SelfAttention(config)
    initialize(attention, config.replace(initializer_range=0.3))
    mask = torch.ones(3, 1, 1, 10, dtype=torch.bool)
    mask[1, ..., 6:] = False
    layout = Layout(3, 10, mask if masked else None, None)
    x = torch.randn(3, 10, 64)
    results = []
    for bf16 in (False, True):
        own = x.clone().requires_grad_()
        attention.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output, probabilities = attention(own, layout)
        assert probabilities is None
        output.float().pow(2).sum().backward()
        gradients = [p.grad.clone() for p in attention.parameters() if p.grad is not None and p.dim() > 1]
        assert own.grad is not None
        results.append([output.detach().float(), own.grad, *gradients])
    for fp32, bf16_ in zip(*results, strict=True):
        assert (fp32 - bf16_).norm() < 0.02 * fp32.norm()


def test_dropout_in_bf16_on_a_cpu_drops_probabilities() -> None:
    config = ModelConfig(hidden_size=64, num_attention_heads=4, intermediate_size=64, attention_probs_dropout_prob=0.5)
    torch.manual_seed(0)
    attention = SelfAttention(config)
    for part in (attention.query, attention.key):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    for part in (attention.value, attention.output):
        nn.init.zeros_(part.weight)
        nn.init.ones_(part.bias)
    attention.output.weight.data.copy_(torch.eye(64))
    nn.init.zeros_(attention.output.bias)
    x = torch.randn(2, 40, 64)
    with torch.autocast("cpu", torch.bfloat16):
        kept = attention.train()(x, Layout(2, 40, None, None))[0].float()
        whole = attention.eval()(x, Layout(2, 40, None, None))[0].float()
    # Values are all one, and so is their mean; with every second weight dropped and the others doubled, on average.
    torch.testing.assert_close(whole, torch.ones_like(whole), atol=0.01, rtol=0)
    assert kept.std() > 0.05
    assert kept.mean().item() == pytest.approx(1.0, abs=0.02)
