"""What the encoder is used for: one class per head, each an encoder and a few parameters more.

Every head keeps the pooler, as the published checkpoints do; where a head does not use it, it takes no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Unpack

from squeezebert.model.config import ModelConfig
from squeezebert.model.grouped import GroupedLinear, grouped_linear
from squeezebert.model.layer import activation
from squeezebert.model.squeezebert import EncoderOptions, ModelOutput, SqueezeBert, initialize

IGNORE = -100
"""Label of a position that takes no part in the loss."""


class MaskedLanguageModel(nn.Module):
    """Scores of every vocabulary token, from hidden states; the decoder's weight is the word embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.hidden_act = config.hidden_act
        self.transform = GroupedLinear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        real = config.vocab_size if config.real_vocab_size is None else config.real_vocab_size
        self.register_buffer("padding_V", torch.arange(config.vocab_size) >= real, persistent=False)
        initialize(self, config)

    def forward(self, x: Tensor, embedding_VC: Tensor) -> Tensor:
        """``[..., C]`` to ``[..., V]``; rows that only pad the vocabulary score minus infinity."""
        x = self.norm(activation(self.hidden_act, self.transform(x)))
        bias_V = self.bias.masked_fill(torch.as_tensor(self.padding_V), float("-inf"))
        return grouped_linear(x, embedding_VC, bias_V)


class _Head(nn.Module):
    """The encoder with something on top."""

    uses_pooler = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = SqueezeBert(config)
        self.transformer.pooler.requires_grad_(self.uses_pooler)

    def _classifier(self, outputs: int) -> nn.Linear:
        """Add dropout and a dense layer onto ``outputs`` scores."""
        rate = self.config.classifier_dropout
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob if rate is None else rate)
        classifier = nn.Linear(self.config.hidden_size, outputs)
        initialize(classifier, self.config)
        return classifier


class SqueezeBertForMaskedLM(_Head):
    """Predicts masked tokens."""

    uses_pooler = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.mlm = MaskedLanguageModel(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        masked_positions: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Unpack[EncoderOptions],
    ) -> ModelOutput:
        """Score tokens; the other arguments are those of :meth:`SqueezeBert.forward`.

        Args:
            masked_positions: ``[M]`` places ``b * T + t`` to score; None: all.
            labels: Token ids, ``[M]`` where positions are given, else ``[B, T]``; -100 is ignored.

        Returns:
            ``logits`` ``[M, V]`` or ``[B, T, V]``, and the mean cross-entropy in nats as ``loss``.
        """
        encoded: ModelOutput = self.transformer(input_ids, attention_mask, token_type_ids, position_ids, **options)
        logits = _score_tokens(self.mlm, self.transformer, encoded, masked_positions)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE)
        return encoded._replace(loss=loss, logits=logits)


def _score_tokens(
    mlm: MaskedLanguageModel, transformer: SqueezeBert, encoded: ModelOutput, masked_positions: Tensor | None
) -> Tensor:
    x = encoded.last_hidden_state
    assert x is not None
    if masked_positions is not None:
        x = x.flatten(0, 1).index_select(0, masked_positions)
    scores: Tensor = mlm(x, transformer.embeddings.word.weight)
    return scores


class SqueezeBertForPreTraining(_Head):
    """Predicts masked tokens and whether two passages were swapped (Lan et al. 2020, section 3.1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.mlm = MaskedLanguageModel(config)
        self.sentence_order = nn.Linear(config.hidden_size, 2)
        initialize(self.sentence_order, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        masked_positions: Tensor | None = None,
        labels: Tensor | None = None,
        sentence_order_labels: Tensor | None = None,
        **options: Unpack[EncoderOptions],
    ) -> ModelOutput:
        """Score tokens and order; the other arguments are those of :class:`SqueezeBertForMaskedLM`.

        Args:
            sentence_order_labels: ``[B]``, 0 in order, 1 swapped, -100 ignored.

        Returns:
            ``logits`` as the masked language model's, ``sentence_order_logits`` ``[B, 2]``, and as ``loss`` the sum of
            the two mean cross-entropies in nats, of those whose labels are given.
        """
        encoded: ModelOutput = self.transformer(input_ids, attention_mask, token_type_ids, position_ids, **options)
        logits = _score_tokens(self.mlm, self.transformer, encoded, masked_positions)
        order_logits_B2 = self.sentence_order(encoded.pooled)
        losses = []
        if labels is not None:
            losses.append(F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE))
        if sentence_order_labels is not None:
            losses.append(F.cross_entropy(order_logits_B2, sentence_order_labels, ignore_index=IGNORE))
        loss = torch.stack(losses).sum() if losses else None
        return encoded._replace(loss=loss, logits=logits, sentence_order_logits=order_logits_B2)


class SqueezeBertForSequenceClassification(_Head):
    """One label, several labels, or a number for a text or a pair."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.classifier = self._classifier(config.num_labels)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **options: Unpack[EncoderOptions],
    ) -> ModelOutput:
        """Score texts; the other arguments are those of :meth:`SqueezeBert.forward`.

        Args:
            labels: ``[B]`` class ids, ``[B]`` values (regression) or ``[B, K]`` zeros and ones (multi-label).

        Returns:
            ``logits`` ``[B, K]``, and as ``loss`` the mean cross-entropy, squared error or binary cross-entropy.
        """
        encoded: ModelOutput = self.transformer(input_ids, attention_mask, token_type_ids, position_ids, **options)
        logits_BK = self.classifier(self.dropout(encoded.pooled))
        loss = None if labels is None else sequence_loss(logits_BK, labels, self.config)
        return encoded._replace(loss=loss, logits=logits_BK)


def sequence_loss(logits_BK: Tensor, labels: Tensor, config: ModelConfig, reduction: str = "mean") -> Tensor:
    """Loss of a sequence classifier by the config's problem type (where that is open, by number and type of labels)."""
    kind = config.problem_type
    if kind is None:
        single = labels.dtype in (torch.long, torch.int)
        kind = (
            "regression" if config.num_labels == 1
            else "single_label_classification" if single else "multi_label_classification"
        )  # fmt: skip
    if kind == "regression":
        return F.mse_loss(logits_BK.view(labels.shape), labels.to(logits_BK.dtype), reduction=reduction)
    if kind == "single_label_classification":
        return F.cross_entropy(logits_BK, labels, reduction=reduction)
    return F.binary_cross_entropy_with_logits(logits_BK, labels.to(logits_BK.dtype), reduction=reduction)


class SqueezeBertForTokenClassification(_Head):
    """A label for every token."""

    uses_pooler = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.classifier = self._classifier(config.num_labels)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **options: Unpack[EncoderOptions],
    ) -> ModelOutput:
        """Score tokens; the other arguments are those of :meth:`SqueezeBert.forward`.

        Args:
            labels: ``[B, T]`` class ids; -100 is ignored.

        Returns:
            ``logits`` ``[B, T, K]``, and the mean cross-entropy as ``loss``.
        """
        encoded: ModelOutput = self.transformer(input_ids, attention_mask, token_type_ids, position_ids, **options)
        logits_BTK = self.classifier(self.dropout(encoded.last_hidden_state))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits_BTK.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        return encoded._replace(loss=loss, logits=logits_BTK)


class SqueezeBertForQuestionAnswering(_Head):
    """First and last token of the answer inside a passage."""

    uses_pooler = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        initialize(self.qa_outputs, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **options: Unpack[EncoderOptions],
    ) -> ModelOutput:
        """Score each token as start and end; the other arguments are those of :meth:`SqueezeBert.forward`.

        Args:
            start_positions: ``[B]`` token position; outside 0..T-1 is ignored.
            end_positions: ``[B]`` likewise.

        Returns:
            ``logits`` ``[B, T, 2]`` (start, end), and the mean of the two cross-entropies as ``loss``.
        """
        encoded: ModelOutput = self.transformer(input_ids, attention_mask, token_type_ids, position_ids, **options)
        logits_BT2 = self.qa_outputs(encoded.last_hidden_state)
        loss = None
        if start_positions is not None and end_positions is not None:
            places_B2 = torch.stack([start_positions, end_positions], 1)
            outside = (places_B2 < 0) | (places_B2 >= input_ids.shape[1])
            places_B2 = places_B2.masked_fill(outside, IGNORE)
            loss = torch.stack(
                [F.cross_entropy(logits_BT2[..., side], places_B2[:, side], ignore_index=IGNORE) for side in (0, 1)]
            ).mean()
        return encoded._replace(loss=loss, logits=logits_BT2)


class SqueezeBertForMultipleChoice(_Head):
    """The best of several continuations."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.classifier = self._classifier(1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **options: Unpack[EncoderOptions],
    ) -> ModelOutput:
        """Score choices; ``input_ids``, mask, types and positions are ``[B, choices, T]``.

        Args:
            labels: ``[B]`` index of the right choice.

        Returns:
            ``logits`` ``[B, choices]``, and the mean cross-entropy as ``loss``. Hidden states, and ``token_indices``,
            are of the flattened ``[B * choices, T]`` batch.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids)
        flat = (None if each is None else each.flatten(0, 1) for each in inputs)
        encoded: ModelOutput = self.transformer(*flat, **options)
        logits = self.classifier(self.dropout(encoded.pooled)).view(input_ids.shape[:2])
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return encoded._replace(loss=loss, logits=logits)


HEADS: dict[str, type[nn.Module]] = {
    "encoder": SqueezeBert,
    "pretraining": SqueezeBertForPreTraining,
    "masked_lm": SqueezeBertForMaskedLM,
    "sequence_classification": SqueezeBertForSequenceClassification,
    "token_classification": SqueezeBertForTokenClassification,
    "question_answering": SqueezeBertForQuestionAnswering,
    "multiple_choice": SqueezeBertForMultipleChoice,
}
"""Head name to class; each class is built from a :class:`ModelConfig`."""
