"""The peers' networks with random weights, as torch modules: three tensors ``[B, T]`` in, logits ``[B, 2]`` out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from squeezebert.model.config import SIZES
from squeezebert.model.heads import SqueezeBertForSequenceClassification
from squeezebert.model.hf import config_to_published

if TYPE_CHECKING:
    from squeezebert.model.config import ModelConfig

SEED = 0
_HEAD = "sequence_classification"
_CLASSES = {"bert": "Bert", "minilm": "Bert", "distilbert": "DistilBert", "mobilebert": "MobileBert"}
# Wang et al. 2020: MiniLM's six layers of 384 channels; the others are transformers' defaults, those of the papers.
_SIZES: dict[str, dict[str, int]] = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
}


class _Logits(nn.Module):
    """A classifier of ``transformers`` as three tensors in, one out."""

    def __init__(self, model: Any, *, segments: bool) -> None:
        super().__init__()
        self.model = model
        self.segments = segments

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Give the logits."""
        types = {"token_type_ids": token_type_ids} if self.segments else {}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits


class _Ours(nn.Module):
    """The package's model likewise."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Give the logits; attention is written out, which every converter reads, as transformers' SqueezeBERT is."""
        logits: Tensor = self.model(input_ids, attention_mask, token_type_ids, output_attentions=True).logits
        return logits


def build(model: str, form: str | None, size: str, vocab_size: int, attention: str | None = None) -> nn.Module:
    """A network with random weights, in evaluation mode.

    Args:
        model: A key of :data:`squeezebert.bench.contenders.MODELS`.
        form: "split": SqueezeBERT with one matrix product per group; else as ``transformers`` has it.
        size: Size of SqueezeBERT; the others have one size each.
        vocab_size: Rows of the word embedding.
        attention: How ``transformers`` computes attention, "eager" or "sdpa"; None: as it chooses.
    """
    import transformers

    torch.manual_seed(SEED)
    if model == "squeezebert":
        config: ModelConfig = SIZES[size].replace(vocab_size=vocab_size)
        if form == "split":
            from squeezebert.export.rewrite import rewrite

            return rewrite(_Ours(SqueezeBertForSequenceClassification(config)), "split", int8_embeddings=False)
        published = transformers.SqueezeBertConfig.from_dict(config_to_published(config, _HEAD))
        return _Logits(transformers.SqueezeBertForSequenceClassification(published), segments=True).eval()
    name = _CLASSES[model]
    settings = getattr(transformers, f"{name}Config")(vocab_size=vocab_size, **_SIZES.get(model, {}))
    if attention is not None:
        settings._attn_implementation = attention
    network = getattr(transformers, f"{name}ForSequenceClassification")(settings)
    return _Logits(network, segments=model != "distilbert").eval()
