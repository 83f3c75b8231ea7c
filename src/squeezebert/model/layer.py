"""One encoder layer: attention and feed-forward, each followed by dropout, residual and LayerNorm (post-LN)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from squeezebert.model.attention import Layout, SelfAttention
from squeezebert.model.config import ModelConfig
from squeezebert.model.grouped import GroupedLinear


def activation(name: str, x: Tensor) -> Tensor:
    """Apply the config's ``hidden_act``; "gelu" is the exact one, x/2 * (1 + erf(x / sqrt(2)))."""
    if name == "gelu":
        return F.gelu(x)
    if name == "gelu_new":
        return F.gelu(x, approximate="tanh")
    return F.relu(x) if name == "relu" else F.silu(x)


class FeedForward(nn.Module):
    """Widen, activate, narrow: the paper's FFN2 and FFN3, G independent networks side by side."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.hidden_act = config.hidden_act
        self.intermediate = GroupedLinear(config.hidden_size, config.intermediate_size, config.intermediate_groups)
        self.output = GroupedLinear(config.intermediate_size, config.hidden_size, config.output_groups)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` to ``[..., C]``."""
        y: Tensor = self.output(activation(self.hidden_act, self.intermediate(x)))
        return y


class Layer(nn.Module):
    """One encoder layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, layout: Layout, with_probabilities: bool = False) -> tuple[Tensor, Tensor | None]:
        """Pass hidden states through the layer; arguments and results as in :class:`SelfAttention`."""
        context, probabilities = self.attention(x, layout, with_probabilities)
        x = self.attention_norm(x + self.dropout(context))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x))), probabilities
