"""Sizes of a SqueezeBERT, under the field names of the published checkpoints. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from squeezebert.errors import InputError

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
PROBLEM_TYPES: tuple[ProblemType, ...] = ("single_label_classification", "multi_label_classification", "regression")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything needed to build a model; the defaults are the paper's SqueezeBERT (Iandola et al. 2020, section 3).

    Raises:
        InputError: A size is not positive, or does not divide as groups and heads need; the message names the field.
    """

    vocab_size: int = 30528
    """Rows of the word embedding (BERT's 30,522 tokens and six rows of padding)."""
    real_vocab_size: int | None = None
    """Tokens that exist; rows beyond are padding and never predicted. None: all rows are real."""
    hidden_size: int = 768
    """Channels of the hidden states."""
    num_hidden_layers: int = 12
    """Encoder layers."""
    num_attention_heads: int = 12
    """Attention heads of a layer; each has hidden_size / num_attention_heads channels."""
    intermediate_size: int = 3072
    """Channels inside the feed-forward part."""
    hidden_act: str = "gelu"
    """Activation of feed-forward part and heads: "gelu" (erf), "gelu_new" (tanh), "relu" or "silu"."""
    hidden_dropout_prob: float = 0.1
    """Dropout after embeddings and sub-layers, probability."""
    attention_probs_dropout_prob: float = 0.1
    """Dropout on attention probabilities, probability."""
    classifier_dropout: float | None = None
    """Dropout before a head's classifier, probability; None: hidden_dropout_prob."""
    max_position_embeddings: int = 512
    """Longest sequence, tokens."""
    type_vocab_size: int = 2
    """Segments (first text, second text)."""
    initializer_range: float = 0.02
    """Standard deviation of freshly drawn weights."""
    layer_norm_eps: float = 1e-12
    """Added to the variance in every LayerNorm."""
    pad_token_id: int = 0
    """Id of the padding token."""
    q_groups: int = 4
    """Groups of the query layer."""
    k_groups: int = 4
    """Groups of the key layer."""
    v_groups: int = 4
    """Groups of the value layer."""
    post_attention_groups: int = 1
    """Groups of the layer after attention (FFN1)."""
    intermediate_groups: int = 4
    """Groups of the widening layer (FFN2)."""
    output_groups: int = 4
    """Groups of the narrowing layer (FFN3)."""
    num_labels: int = 2
    """Outputs of a classification head."""
    id2label: Mapping[int, str] = field(default_factory=dict)
    """Name of each output; empty: not named."""
    problem_type: ProblemType | None = None
    """What a classification head predicts; None: decided by the labels given to it."""

    def __post_init__(self) -> None:
        sizes = (
            "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings "
            "type_vocab_size q_groups k_groups v_groups post_attention_groups intermediate_groups output_groups "
            "num_labels"
        )
        for name in sizes.split():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"config: {name} must be a positive whole number, not {value!r}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and 0 <= value < 1):
                raise InputError(f"config: {name} must be at least 0 and below 1, not {value!r}")
        if self.hidden_act not in ("gelu", "gelu_new", "relu", "silu"):
            raise InputError(f"config: hidden_act {self.hidden_act!r} is unknown; use gelu, gelu_new, relu or silu")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"config: hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        hidden, wide = ("hidden_size", self.hidden_size), ("intermediate_size", self.intermediate_size)
        for name, sides in (
            ("q_groups", (hidden,)),
            ("k_groups", (hidden,)),
            ("v_groups", (hidden,)),
            ("post_attention_groups", (hidden,)),
            ("intermediate_groups", (hidden, wide)),
            ("output_groups", (wide, hidden)),
        ):
            groups = getattr(self, name)
            for side, channels in sides:
                if channels % groups:
                    raise InputError(f"config: {side} {channels} is not a multiple of {name} {groups}")
        if self.real_vocab_size is not None and not 0 < self.real_vocab_size <= self.vocab_size:
            raise InputError(f"config: real_vocab_size {self.real_vocab_size} must lie in 1..{self.vocab_size}")
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise InputError(f"config: problem_type {self.problem_type!r} is none of {', '.join(PROBLEM_TYPES)}")
        if self.id2label and sorted(self.id2label) != list(range(self.num_labels)):
            raise InputError(f"config: id2label names outputs {sorted(self.id2label)}, not 0..{self.num_labels - 1}")

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in output order; ``LABEL_0``, ``LABEL_1`` and so on where none are stored."""
        return tuple(self.id2label.get(i, f"LABEL_{i}") for i in range(self.num_labels))

    def replace(self, **changes: Any) -> ModelConfig:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["id2label"] = {str(index): label for index, label in self.id2label.items()}
        return values


_SMALL = ModelConfig(hidden_size=384, num_attention_heads=12, num_hidden_layers=6, intermediate_size=1536)

SIZES: dict[str, ModelConfig] = {
    # The paper's model: 51.1 M parameters, 7.40 GFLOP at 128 tokens.
    "base": ModelConfig(),
    # 12 heads of 32 channels; the same lanes at half the width.
    "small": _SMALL,
    # For tests and first steps: builds in milliseconds.
    "tiny": ModelConfig(
        vocab_size=2048,
        hidden_size=64,
        num_attention_heads=4,
        num_hidden_layers=2,
        intermediate_size=256,
        max_position_embeddings=512,
    ),
}
"""Named sizes. A name stands for random weights."""
