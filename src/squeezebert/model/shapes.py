"""Names and shapes of a model's parameters, from its config alone. No torch here."""

from __future__ import annotations

from squeezebert.model.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]

_PREFIX = "transformer."


def parameter_shapes(config: ModelConfig, head: str) -> Shapes:
    """Shape of every parameter of a model, as its ``named_parameters()`` would give them.

    Args:
        config: The model's sizes.
        head: A key of :data:`squeezebert.model.heads.HEADS`.
    """
    channels, wide = config.hidden_size, config.intermediate_size
    encoder: Shapes = {
        "embeddings.word.weight": (config.vocab_size, channels),
        "embeddings.position.weight": (config.max_position_embeddings, channels),
        "embeddings.token_type.weight": (config.type_vocab_size, channels),
        **_norm("embeddings.norm", channels),
    }
    for number in range(config.num_hidden_layers):
        name = f"layers.{number}"
        encoder |= {
            **_linear(f"{name}.attention.query", channels, channels, config.q_groups),
            **_linear(f"{name}.attention.key", channels, channels, config.k_groups),
            **_linear(f"{name}.attention.value", channels, channels, config.v_groups),
            **_linear(f"{name}.attention.output", channels, channels, config.post_attention_groups),
            **_norm(f"{name}.attention_norm", channels),
            **_linear(f"{name}.feed_forward.intermediate", wide, channels, config.intermediate_groups),
            **_linear(f"{name}.feed_forward.output", channels, wide, config.output_groups),
            **_norm(f"{name}.feed_forward_norm", channels),
        }
    encoder |= _linear("pooler.dense", channels, channels)
    if head == "encoder":
        return encoder
    shapes: Shapes = {f"{_PREFIX}{name}": shape for name, shape in encoder.items()}
    if head in ("masked_lm", "pretraining"):
        shapes |= {**_linear("mlm.transform", channels, channels), **_norm("mlm.norm", channels)}
        shapes["mlm.bias"] = (config.vocab_size,)
    if head == "pretraining":
        shapes |= _linear("sentence_order", 2, channels)
    if head in ("sequence_classification", "token_classification"):
        shapes |= _linear("classifier", config.num_labels, channels)
    if head == "multiple_choice":
        shapes |= _linear("classifier", 1, channels)
    if head == "question_answering":
        shapes |= _linear("qa_outputs", 2, channels)
    return shapes


def uses_pooler(head: str) -> bool:
    """Whether the head's scores come from the pooler; other heads keep it without having trained it."""
    return head not in ("masked_lm", "token_classification", "question_answering")


def _linear(name: str, outputs: int, inputs: int, groups: int = 1) -> Shapes:
    return {f"{name}.weight": (outputs, inputs // groups), f"{name}.bias": (outputs,)}


def _norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}
