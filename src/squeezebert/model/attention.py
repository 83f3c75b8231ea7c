"""Self-attention whose query, key, value and output layers are grouped."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from squeezebert.model.config import ModelConfig
from squeezebert.model.grouped import GroupedLinear


class Layout(NamedTuple):
    """How a batch lies in memory while it passes through the layers.

    Padded, the hidden states are ``[B, T, C]``. Without padding they are ``[N, C]``: the N real tokens of all sequences
    in a row; only attention puts them back on the ``[B, T]`` grid, since it alone compares tokens with one another.
    """

    batch: int
    tokens: int
    key_mask_B11T: Tensor | None
    """True where a key may be attended to; None: everywhere."""
    token_indices_N: Tensor | None
    """Places ``b * T + t`` of the real tokens on the grid, ascending; None: padded."""

    def pad(self, x: Tensor) -> Tensor:
        """Give ``[B, T, C]``, with zeros where no token is."""
        if self.token_indices_N is None:
            return x
        grid = x.new_zeros(self.batch * self.tokens, x.shape[-1])
        return grid.index_copy(0, self.token_indices_N, x).view(self.batch, self.tokens, -1)

    def unpad(self, x_BTC: Tensor) -> Tensor:
        """Undo :meth:`pad`."""
        if self.token_indices_N is None:
            return x_BTC
        return x_BTC.reshape(self.batch * self.tokens, -1).index_select(0, self.token_indices_N)


class SelfAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2) on grouped layers.

    With 4 groups and 12 heads, group g's channels are exactly heads 3g, 3g + 1 and 3g + 2: up to the output layer, the
    four lanes never meet.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = GroupedLinear(config.hidden_size, config.hidden_size, config.q_groups)
        self.key = GroupedLinear(config.hidden_size, config.hidden_size, config.k_groups)
        self.value = GroupedLinear(config.hidden_size, config.hidden_size, config.v_groups)
        self.output = GroupedLinear(config.hidden_size, config.hidden_size, config.post_attention_groups)

    def forward(self, x: Tensor, layout: Layout, with_probabilities: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attend within each sequence.

        Args:
            x: ``[B, T, C]`` or ``[N, C]``, as ``layout`` says.
            layout: The batch's layout.
            with_probabilities: Return the attention probabilities too (slower: they are never formed otherwise).

        Returns:
            The sub-layer's output, shaped like ``x``, and the probabilities ``[B, H, T, T]`` or None.
        """
        q_BHTD, k_BHTD, v_BHTD = (
            layout.pad(layer(x)).view(layout.batch, layout.tokens, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        probabilities = None
        if with_probabilities or _fused_is_slow(q_BHTD):
            scores_BHTT = (q_BHTD / math.sqrt(q_BHTD.shape[-1])) @ k_BHTD.transpose(2, 3)
            if layout.key_mask_B11T is not None:
                scores_BHTT = scores_BHTT.masked_fill(~layout.key_mask_B11T, torch.finfo(scores_BHTT.dtype).min)
            probabilities = scores_BHTT.softmax(-1)
            context_BHTD = F.dropout(probabilities, dropout, self.training) @ v_BHTD
        else:
            context_BHTD = F.scaled_dot_product_attention(
                q_BHTD, k_BHTD, v_BHTD, attn_mask=layout.key_mask_B11T, dropout_p=dropout
            )
        context = layout.unpad(context_BHTD.transpose(1, 2).flatten(2))
        return self.output(context), probabilities if with_probabilities else None


def _fused_is_slow(q: Tensor) -> bool:
    """Whether the two products and a softmax beat torch's fused attention: bf16 on a CPU.

    There the fused backward pass takes three times as long as it does in fp32; the products, which the matrix units do,
    take a fifth of it (32 rows of 128 tokens, 12 heads of 32 channels: 24 ms forward and backward, fused 101 ms).
    """
    return q.device.type == "cpu" and q.dtype == torch.bfloat16
