"""Rewrites of a model that make it smaller or faster in other runtimes, done before it is converted.

They change how a weight is stored, not its formula. A grouped layer becomes one linear layer per group or a convolution
whose weights a converter sees as constants and can quantise; an embedding becomes int8 rows with a scale each, in
operations that every runtime has, so that none needs to know quantised embeddings.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from squeezebert.export.quantize import quantize_rows
from squeezebert.model.embeddings import Embeddings
from squeezebert.model.grouped import Form, GroupedLinear
from squeezebert.model.heads import MaskedLanguageModel, SqueezeBertForMaskedLM, SqueezeBertForPreTraining
from squeezebert.model.layer import activation
from squeezebert.model.squeezebert import set_form


def rewrite(module: nn.Module, form: Form, *, int8_embeddings: bool) -> nn.Module:
    """Copy a model, with its grouped layers in a form and its embeddings as they are or in int8.

    Args:
        module: Holds a model of :mod:`squeezebert.model`; stays as it is.
        form: Of the layers with groups: "conv", "bmm", or "split", one linear layer per group.
        int8_embeddings: Store word and position embeddings in int8, a quarter of the size. A decoder that shares the
            word embedding's weight gets one of its own, as a linear layer.

    Returns:
        The copy, in evaluation mode.
    """
    copied = copy.deepcopy(module).eval()
    if int8_embeddings:
        # The decoder first: it reads the word embedding's weight.
        for model in list(copied.modules()):
            if isinstance(model, (SqueezeBertForMaskedLM, SqueezeBertForPreTraining)):
                model.mlm = _Decoder(model.mlm, model.transformer.embeddings.word.weight)  # type: ignore[assignment]
        for part in list(copied.modules()):
            if isinstance(part, Embeddings):
                part.word = _Int8Embedding(part.word)  # type: ignore[assignment]
                part.position = _Int8Embedding(part.position)  # type: ignore[assignment]
    if form == "bmm":
        set_form(copied, form)
    else:
        _replace(copied, _Lanes if form == "split" else _Convolution)
    return copied.requires_grad_(False).eval()


def _replace(module: nn.Module, kind: type[_Lanes | _Convolution]) -> None:
    """Put a module of another kind in place of each grouped layer inside ``module``."""
    for name, child in module.named_children():
        if isinstance(child, GroupedLinear):
            setattr(module, name, kind(child) if child.groups > 1 else _linear(child.weight, child.bias))
        else:
            _replace(child, kind)


class _Lanes(nn.Module):
    """A grouped layer as one linear layer per group."""

    def __init__(self, layer: GroupedLinear) -> None:
        super().__init__()
        weights, biases = layer.weight.chunk(layer.groups), layer.bias.chunk(layer.groups)
        self.lanes = nn.ModuleList(_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        parts = x.chunk(len(self.lanes), -1)
        return torch.cat([lane(part) for lane, part in zip(self.lanes, parts, strict=True)], -1)


class _Convolution(nn.Module):
    """A grouped layer as a convolution of kernel 1, whose weight is a constant of its shape in every converter."""

    def __init__(self, layer: GroupedLinear) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(layer.in_features, layer.out_features, 1, groups=layer.groups)
        self.conv1d.weight = nn.Parameter(layer.weight.detach().clone()[:, :, None])
        self.conv1d.bias = nn.Parameter(layer.bias.detach().clone())

    def forward(self, x_BTC: Tensor) -> Tensor:
        """``[B, T, in]`` to ``[B, T, out]``."""
        y_BTC: Tensor = self.conv1d(x_BTC.transpose(1, 2)).transpose(1, 2)
        return y_BTC


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return layer


class _Int8Embedding(nn.Module):
    """An embedding whose rows are int8, with a scale each (:func:`squeezebert.export.quantize.quantize_rows`)."""

    weight = None  # what a decoder that shares the weight would read; _Decoder does not

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        rows = quantize_rows(embedding.weight.detach().numpy())
        self.register_buffer("rows", torch.from_numpy(rows.values))
        self.register_buffer("scale", torch.from_numpy(rows.scale)[:, None])

    def forward(self, ids: Tensor) -> Tensor:
        """Ids ``[...]`` to ``[..., C]``."""
        return F.embedding(ids, self.rows).float() * F.embedding(ids, self.scale)  # type: ignore[arg-type]


class _Decoder(nn.Module):
    """A masked language model's head with a decoder of its own, in place of the word embedding's weight."""

    def __init__(self, head: MaskedLanguageModel, embedding_VC: Tensor) -> None:
        super().__init__()
        self.hidden_act, self.transform, self.norm = head.hidden_act, head.transform, head.norm
        bias_V = head.bias.detach().masked_fill(torch.as_tensor(head.padding_V), float("-inf"))
        self.decoder = _linear(embedding_VC, bias_V)

    def forward(self, x: Tensor, embedding_VC: Tensor | None) -> Tensor:
        """``[..., C]`` to ``[..., V]``; the embedding is not looked at."""
        scores: Tensor = self.decoder(self.norm(activation(self.hidden_act, self.transform(x))))
        return scores
