"""The encoder, assembled: embeddings, layers, pooler."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from squeezebert.model.attention import Layout
from squeezebert.model.config import ModelConfig
from squeezebert.model.embeddings import Embeddings
from squeezebert.model.grouped import FORMS, Form, GroupedLinear
from squeezebert.model.layer import Layer


class ModelOutput(NamedTuple):
    """What a forward pass gives; fields that were not asked for, or that the head does not have, are None."""

    loss: Tensor | None = None
    """Scalar, where labels were given."""
    logits: Tensor | None = None
    """The head's scores; their shape is the head's."""
    last_hidden_state: Tensor | None = None
    """``[B, T, C]`` after the last layer; zeros at padding when the batch came without padding."""
    pooled: Tensor | None = None
    """``[B, C]``: tanh of a dense layer on the first token."""
    hidden_states: tuple[Tensor, ...] | None = None
    """Embedding output and each layer's output, ``[B, T, C]`` each."""
    attentions: tuple[Tensor, ...] | None = None
    """Each layer's attention probabilities, ``[B, H, T, T]``."""
    sentence_order_logits: Tensor | None = None
    """``[B, 2]``: in order, swapped."""


class EncoderOptions(TypedDict, total=False):
    """Keywords of :meth:`SqueezeBert.forward` that every head passes on."""

    token_indices: Tensor | None
    output_hidden_states: bool
    output_attentions: bool


class Pooler(nn.Module):
    """The first token's vector, through a dense layer and tanh."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """``[B, T, C]`` to ``[B, C]``."""
        return torch.tanh(self.dense(x_BTC[:, 0]))


class SqueezeBert(nn.Module):
    """SqueezeBERT's encoder (Iandola et al. 2020): BERT with grouped position-wise layers.

    Attributes:
        gradient_checkpointing: Recompute each layer in the backward pass, trading a third more time for memory.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.pooler = Pooler(config)
        initialize(self, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        token_indices: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ModelOutput:
        """Encode a batch.

        Args:
            input_ids: ``[B, T]`` token ids.
            attention_mask: ``[B, T]``, 1 for tokens and 0 for padding; None: no padding.
            token_type_ids: ``[B, T]`` segment of each token; None: all 0.
            position_ids: ``[B, T]`` or ``[1, T]``; None: 0, 1, 2, ...
            token_indices: ``[N]`` places ``b * T + t`` of the real tokens. Given, padding is left out of every
                position-wise layer; results at real tokens are the same.
            output_hidden_states: Return the hidden states of every layer.
            output_attentions: Return the attention probabilities of every layer.

        Returns:
            ``last_hidden_state``, ``pooled`` and what was asked for.
        """
        batch, tokens = input_ids.shape
        if position_ids is None:
            position_ids = torch.arange(tokens, device=input_ids.device)[None]
        layout = Layout(batch, tokens, _key_mask(attention_mask), token_indices)
        if token_indices is not None:
            input_ids, position_ids = (
                ids.expand(batch, tokens).reshape(-1)[token_indices] for ids in (input_ids, position_ids)
            )
            token_type_ids = None if token_type_ids is None else token_type_ids.reshape(-1)[token_indices]
        x = self.embeddings(input_ids, position_ids, token_type_ids)
        hidden_states, attentions = [x], []
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x, probabilities = checkpoint(layer, x, layout, output_attentions, use_reentrant=False)
            else:
                x, probabilities = layer(x, layout, output_attentions)
            if output_hidden_states:
                hidden_states.append(x)
            if output_attentions:
                attentions.append(probabilities)
        x_BTC = layout.pad(x)
        return ModelOutput(
            last_hidden_state=x_BTC,
            pooled=self.pooler(x_BTC),
            hidden_states=tuple(layout.pad(h) for h in hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


def _key_mask(attention_mask_BT: Tensor | None) -> Tensor | None:
    """Mask of the keys, ``[B, 1, 1, T]``; None where nothing is masked, which lets attention take its fastest path."""
    if attention_mask_BT is None:
        return None
    # Looking at the values is free on a CPU; elsewhere it would wait for the device, and in a graph it would break it.
    if attention_mask_BT.device.type == "cpu" and not torch.compiler.is_compiling() and bool(attention_mask_BT.all()):
        return None
    return attention_mask_BT[:, None, None, :].to(torch.bool)


@torch.no_grad()
def initialize(module: nn.Module, config: ModelConfig) -> None:
    """Draw fresh weights: normal with the config's standard deviation; biases 0, norms 1, the padding token 0."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, GroupedLinear)):
            part.weight.normal_(0.0, config.initializer_range)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.Embedding):
            part.weight.normal_(0.0, config.initializer_range)
            if part.padding_idx is not None:
                part.weight[part.padding_idx].zero_()
        elif isinstance(part, nn.LayerNorm):
            part.weight.fill_(1.0)
            part.bias.zero_()


def set_form(module: nn.Module, form: Form) -> None:
    """Choose how every grouped layer of ``module`` computes its product: "auto", "conv", "split" or "bmm".

    Raises:
        ValueError: The form is unknown.
    """
    if form not in FORMS:
        raise ValueError(f"form {form!r} is unknown; use one of {', '.join(FORMS)}")
    for part in module.modules():
        if isinstance(part, GroupedLinear):
            part.form = form


def pack_for_inference(module: nn.Module) -> None:
    """Lay the grouped layers' weights out as oneDNN wants them (:meth:`GroupedLinear.pack`), once for all calls.

    At 32 tokens doing so in each call is half of the time. It takes as much memory again as the layers' weights, and
    serves where no gradients are asked for.
    """
    for part in module.modules():
        if isinstance(part, GroupedLinear):
            part.pack()
