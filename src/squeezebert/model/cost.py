"""Parameters and multiply-adds of a model, layer by layer, from its config alone."""

from __future__ import annotations

from typing import NamedTuple

from squeezebert.model.config import ModelConfig


class Cost(NamedTuple):
    """One row of the table."""

    name: str
    parameters: int
    """Trainable numbers."""
    multiply_adds: int
    """Multiply-adds of the matrix products for one sequence; 2 FLOP each."""


def table(config: ModelConfig, tokens: int = 128, head: str = "encoder") -> list[Cost]:
    """Cost of each part for one sequence of ``tokens`` tokens; element-wise work (norms, softmax, GELU) is left out.

    Args:
        config: The model's sizes.
        tokens: Sequence length.
        head: A key of :data:`squeezebert.model.heads.HEADS`.

    Returns:
        One row for the embeddings, one per sub-layer of one encoder layer (named ``layer: ...``), one for all encoder
        layers together, one for the pooler and one for the head, where it has any parameters.
    """
    hidden, wide = config.hidden_size, config.intermediate_size
    norm = 2 * hidden

    def grouped(name: str, inputs: int, outputs: int, groups: int) -> Cost:
        weights = inputs * outputs // groups
        return Cost(f"layer: {name}", weights + outputs, weights * tokens)

    layer = [
        grouped("query", hidden, hidden, config.q_groups),
        grouped("key", hidden, hidden, config.k_groups),
        grouped("value", hidden, hidden, config.v_groups),
        Cost("layer: attention products", 0, 2 * tokens * tokens * hidden),
        grouped("post-attention", hidden, hidden, config.post_attention_groups),
        Cost("layer: attention norm", norm, 0),
        grouped("intermediate", hidden, wide, config.intermediate_groups),
        grouped("output", wide, hidden, config.output_groups),
        Cost("layer: feed-forward norm", norm, 0),
    ]
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    encoder = Cost(
        f"{config.num_hidden_layers} layers",
        config.num_hidden_layers * sum(part.parameters for part in layer),
        config.num_hidden_layers * sum(part.multiply_adds for part in layer),
    )
    costs = [Cost("embeddings", rows * hidden + norm, 0), *layer, encoder]
    costs.append(Cost("pooler", hidden * hidden + hidden, hidden * hidden))

    def dense(name: str, inputs: int, outputs: int, times: int) -> Cost:
        return Cost(name, inputs * outputs + outputs, inputs * outputs * times)

    if head in ("masked_lm", "pretraining"):
        # The decoder's weight is the word embedding: counted there, multiplied here.
        parameters = hidden * hidden + hidden + norm + config.vocab_size
        costs.append(Cost("masked language model", parameters, hidden * (hidden + config.vocab_size) * tokens))
    if head == "pretraining":
        costs.append(dense("sentence order", hidden, 2, 1))
    if head == "sequence_classification":
        costs.append(dense("classifier", hidden, config.num_labels, 1))
    if head == "token_classification":
        costs.append(dense("classifier", hidden, config.num_labels, tokens))
    if head == "question_answering":
        costs.append(dense("answer span", hidden, 2, tokens))
    if head == "multiple_choice":
        costs.append(dense("classifier", hidden, 1, 1))
    return costs


def total(costs: list[Cost]) -> Cost:
    """Sum of a table, counting the encoder's layers once."""
    parts = [cost for cost in costs if not cost.name.startswith("layer: ")]
    return Cost("total", sum(cost.parameters for cost in parts), sum(cost.multiply_adds for cost in parts))
