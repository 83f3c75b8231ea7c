"""General distillation: a student encoder comes to compute what a teacher encoder computes, on any text, no labels.

With hidden states ``s`` and ``t`` of student and teacher, ``W`` a linear layer where their widths differ, and sums over
tokens that are not padding:

    embedding, hidden states   |W s - t|^2 / mean |t|^2   TinyBERT (Jiao et al. 2020, equations 8 and 9), relative here,
                                                          so that every layer weighs the same
    self-attention relations   KL(softmax(X X' / sqrt(d)) of the teacher || the same of the student), for X the queries,
                               keys and values of the last layer, cut into equally many relation heads
                                                          MiniLMv2 (Wang et al. 2021, equations 4 to 6)
    sentence                   |W p - m|^2 / mean |m|^2   for p the student's pooled vector, and m the mean over tokens
                                                          of the teacher's last hidden states, as sentence embedders
                                                          take theirs (Reimers & Gurevych 2019, section 3)
    masked tokens              cross-entropy
    sentence order             cross-entropy

The student reads the text with its masked tokens, if there are any; the teacher always reads it as it was written, and
so shows also what the masked places mean (as in data2vec, Baevski et al. 2022). Embeddings, which know no context, are
compared on what the student reads. To an embedder of sentences masks are foreign: with 15 % of them three quarters of
the square of all-MiniLM-L6-v2's mean vectors are alike for every text.

The mean is that of the layer, not the token's own square: of all-MiniLM-L6-v2's last layer the vectors' squares lie
between 1 and 160, and the short ones would outweigh the others. A term is reported as it enters the loss, times its
weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from squeezebert.data.pretraining import PretrainingBatch, PretrainingSource
from squeezebert.errors import InputError
from squeezebert.model.squeezebert import SqueezeBert
from squeezebert.tokenizer import Tokenizer
from squeezebert.training.grouping import Order, reordered
from squeezebert.training.losses import to_device, unwrapped
from squeezebert.training.pretraining_loss import summed_cross_entropy
from squeezebert.training.progress import Figures
from squeezebert.training.recipes import DistillationRecipe

_MASKED = -1e4  # score of a key that is padding: its probability is exactly 0, and its logarithm finite


class States(NamedTuple):
    """What is compared."""

    hidden: tuple[Tensor, ...]
    """Embedding output and each layer's output, ``[B, T, C]`` each."""
    relations: tuple[Tensor, ...]
    """Queries, keys and values of the last layer, ``[B, T, C]`` each; empty where they are not compared."""
    sentence: Tensor | None
    """The pooled vector, widened, ``[B, C]``; None where it is not compared."""
    logits: Tensor | None
    """Scores of the masked tokens, ``[M, V]``; None without them."""
    order_logits: Tensor | None
    """Scores of the passages' order, ``[B, 2]``; None without them."""


class DistilledEncoder(nn.Module):
    """A student, and the layers that widen its hidden states to the teacher's.

    Args:
        model: The student: a bare encoder, or one with the heads of pretraining.
        teacher_width: Channels of the teacher's hidden states.
        recipe: What is compared.
    """

    def __init__(self, model: nn.Module, teacher_width: int, recipe: DistillationRecipe) -> None:
        super().__init__()
        self.model = model
        width = self.encoder.config.hidden_size
        differ = width != teacher_width
        self.embedding_projection = nn.Linear(width, teacher_width) if differ and recipe.embedding else nn.Identity()
        self.hidden_projection = nn.Linear(width, teacher_width) if differ and recipe.hidden else nn.Identity()
        # The pooled vector lies between -1 and 1, whatever the widths.
        self.sentence_projection = nn.Linear(width, teacher_width) if recipe.sentence else None
        self._relations = bool(recipe.relations)
        self.encoder.pooler.requires_grad_(bool(recipe.sentence_order or recipe.sentence))

    @property
    def encoder(self) -> SqueezeBert:
        """The student's encoder."""
        return self.model if isinstance(self.model, SqueezeBert) else self.model.transformer  # type: ignore[return-value]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor, masked_positions: Tensor | None
    ) -> States:
        """Compute what is compared; the arguments are those of the masked language model."""
        options = {} if masked_positions is None else {"masked_positions": masked_positions}
        output = self.model(input_ids, attention_mask, token_type_ids, output_hidden_states=True, **options)
        first, *others = output.hidden_states
        return States(
            (self.embedding_projection(first), *map(self.hidden_projection, others)),
            relation_vectors(self.encoder, output.hidden_states) if self._relations else (),
            None if self.sentence_projection is None else self.sentence_projection(self.encoder.pooler(others[-1])),
            output.logits,
            output.sentence_order_logits,
        )


def relation_vectors(encoder: SqueezeBert, hidden_states: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Queries, keys and values of an encoder's last layer, from what enters it. *Shape:* ``[B, T, C]`` each."""
    attention: Any = encoder.layers[-1].attention
    return tuple(layer(hidden_states[-2]) for layer in (attention.query, attention.key, attention.value))


class EncoderDistillationLoss:
    """How far a :class:`DistilledEncoder` is from its teacher.

    Args:
        teacher: The teacher's encoder, on the device, in evaluation mode.
        student: The student's encoder.
        recipe: Weights of the terms, and which layers are compared.
        device: Where everything is.
        order: In which the student, an encoder like its teacher, was put; None: in none.

    Raises:
        InputError: The layers asked for do not exist, or the relation heads do not divide the widths.
    """

    def __init__(
        self,
        teacher: SqueezeBert,
        student: SqueezeBert,
        recipe: DistillationRecipe,
        device: torch.device,
        order: Order | None = None,
    ) -> None:
        self._teacher = teacher.requires_grad_(False)
        self._recipe = recipe
        self._device = device
        self._places = None if order is None else order.places.to(device)
        self._attention_places = None if order is None else order.attention_places(-1).to(device)
        self.layers = layer_map(recipe.layers, student.config.num_hidden_layers, teacher.config.num_hidden_layers)
        self._heads = recipe.relation_heads or teacher.config.num_attention_heads
        for name, encoder in (("student", student), ("teacher", teacher)):
            if recipe.relations and encoder.config.hidden_size % self._heads:
                raise InputError(
                    f"recipe: distillation.relation_heads {self._heads} does not divide the {name}'s hidden_size "
                    f"{encoder.config.hidden_size}"
                )
        weights = {
            "embedding_loss": recipe.embedding,
            "hidden_loss": recipe.hidden,
            "relation_loss": recipe.relations,
            "sentence_loss": recipe.sentence,
            "mlm_loss": recipe.mlm,
            "sentence_order_loss": recipe.sentence_order,
        }
        self._weights = {name: weight for name, weight in weights.items() if weight}
        self._scales = [1.0] * (teacher.config.num_hidden_layers + 1)
        self._sentence_scale = 1.0
        self.names = tuple(self._weights)

    @torch.no_grad()
    def calibrate(self, batch: PretrainingBatch) -> None:
        """Measure the teacher's vectors, to which errors are relative; always with the same rows of a run."""
        inputs = self._inputs(batch, masked=False)
        states = self._teacher(*inputs, output_hidden_states=True).hidden_states
        self._scales = [float(relative_error(torch.zeros_like(t), t, inputs[1], 1.0)) / batch.tokens for t in states]
        self._sentence_scale = float(mean_vectors(states[-1], inputs[1]).square().sum(-1).mean())

    def count(self, batch: PretrainingBatch) -> tuple[float, ...]:
        """Number of tokens; for the masked language model of masked ones, for sentences and their order of rows."""
        rows = len(batch.input_ids)
        others = {"mlm_loss": len(batch.masked_labels), "sentence_loss": rows, "sentence_order_loss": rows}
        return tuple(others.get(name, batch.tokens) for name in self.names)

    def tokens(self, batch: PretrainingBatch) -> int:
        """Number of tokens without padding."""
        return batch.tokens

    def __call__(self, model: nn.Module, batch: PretrainingBatch) -> Tensor:
        """Sums of the terms, times their weights. *Shape:* ``[terms]``."""
        return self.weighted(self.terms(model, batch))

    def weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Turn the sums that :meth:`terms` gives into those of the loss. *Shape:* ``[terms]``."""
        sums = dict(terms)
        if self._recipe.embedding:
            sums["embedding_loss"] = terms["embedding_error"]
        if self._recipe.hidden:
            layers = torch.stack([terms[f"layer_{layer}_error"] for layer, _ in self.layers])
            weights = layers.new_tensor([1.0] * (len(layers) - 1) + [self._recipe.last_layer])
            sums["hidden_loss"] = (layers * weights).sum() / weights.sum()
        return torch.stack([self._weights[name] * sums[name] for name in self.names])

    def terms(self, model: nn.Module, batch: PretrainingBatch) -> dict[str, Tensor]:
        """Sums over what :meth:`count` counts, unweighted: ``embedding_error``, ``layer_N_error``, and the losses.

        Those without a weight are left out: where the widths differ, nothing would widen their vectors.
        """
        written = self._inputs(batch, masked=False)
        inputs = self._inputs(batch, masked=True) if self._recipe.mlm else written
        mask_BT = inputs[1]
        positions = to_device(batch.masked_positions, self._device) if self._recipe.mlm else None
        ours: States = model(*inputs, positions)
        with torch.no_grad():
            theirs = self._teacher(*written, output_hidden_states=True).hidden_states
        terms = {}
        if self._recipe.embedding:
            embedded = theirs[0]
            if self._recipe.mlm:
                places = torch.arange(inputs[0].shape[1], device=self._device)
                embedded = self._teacher.embeddings(inputs[0], places, inputs[2])
            embedded = reordered(embedded, self._places)
            terms["embedding_error"] = relative_error(ours.hidden[0], embedded, mask_BT, self._scales[0])
        if self._recipe.hidden:
            for layer, taught in self.layers:
                wanted = reordered(theirs[taught], self._places)
                error = relative_error(ours.hidden[layer], wanted, mask_BT, self._scales[taught])
                terms[f"layer_{layer}_error"] = error
        if self._recipe.relations:
            with torch.no_grad():
                vectors = [reordered(x, self._attention_places) for x in relation_vectors(self._teacher, theirs)]
            losses = [
                relation_loss(x, y, mask_BT, self._heads) for x, y in zip(ours.relations, vectors, strict=True)
            ]  # fmt: skip
            terms["relation_loss"] = torch.stack(losses).sum()
        if ours.sentence is not None:
            means_BC = mean_vectors(reordered(theirs[-1], self._places), mask_BT)
            terms["sentence_loss"] = relative_error(ours.sentence, means_BC, None, self._sentence_scale)
        if ours.logits is not None:
            terms["mlm_loss"] = summed_cross_entropy(ours.logits, batch.masked_labels, self._device)
        if ours.order_logits is not None and batch.sentence_order_labels is not None:
            labels = batch.sentence_order_labels
            terms["sentence_order_loss"] = summed_cross_entropy(ours.order_logits, labels, self._device)
        return terms

    def _inputs(self, batch: PretrainingBatch, *, masked: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        """Ids, attention mask and types, of the text with or without its masked tokens."""
        ids = batch.input_ids if masked else batch.written_ids()
        mask = None if batch.attention_mask is None else to_device(batch.attention_mask, self._device)
        return to_device(ids, self._device), mask, to_device(batch.token_type_ids, self._device)


def layer_map(layers: Sequence[int], student: int, teacher: int) -> list[tuple[int, int]]:
    """Which of the student's layers is compared with which of the teacher's, both counted from 1.

    Args:
        layers: The teacher's layer for each of the student's, 0: none; empty: spread evenly, last to last.
        student: Layers of the student.
        teacher: Layers of the teacher.

    Raises:
        InputError: ``layers`` are not as many as the student's, or beyond the teacher's.
    """
    chosen = list(layers) or [-(-layer * teacher // student) for layer in range(1, student + 1)]
    if len(chosen) != student or not all(0 <= layer <= teacher for layer in chosen) or not any(chosen):
        raise InputError(
            f"recipe: distillation.layers must name, for each of the student's {student} layers, one of the teacher's, "
            f"1 to {teacher}, or 0 for none; not {chosen}"
        )
    return [(layer, taught) for layer, taught in enumerate(chosen, start=1) if taught]


def require_same_vocabulary(source: str, theirs: Tokenizer | None, ours: Tokenizer, whose: str, remedy: str) -> None:
    """Check that a teacher and its student number their tokens alike.

    Args:
        source: The teacher, as it was named.
        theirs: Its tokenizer.
        ours: The student's.
        whose: For people: where ours comes from.
        remedy: For people: what to do where they differ.

    Raises:
        InputError: They do not; the message names the first token that differs.
    """
    if theirs is None:
        raise InputError(f"{source}: no tokenizer.json or vocab.txt beside the weights; put the teacher's own there")
    for index in range(max(ours.vocab_size, theirs.vocab_size)):
        a, b = (each.id_to_token(index) if index < each.vocab_size else None for each in (theirs, ours))
        if a != b:
            raise InputError(
                f"{source}: another vocabulary than {whose} (token {index} is {a!r}, there {b!r}); {remedy}"
            )


def mean_vectors(x_BTC: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Mean over the tokens that are not padding. *Shape:* ``[B, C]``."""
    if mask_BT is None:
        return x_BTC.float().mean(1)
    return (x_BTC.float() * mask_BT[:, :, None]).sum(1) / mask_BT.sum(1)[:, None]


def relative_error(student_BTC: Tensor, teacher_BTC: Tensor, mask_BT: Tensor | None, scale: float) -> Tensor:
    """Sum over tokens, or rows, of the squared distance relative to ``scale``, a vector's usual square. Scalar."""
    errors_BT = (student_BTC.float() - teacher_BTC.float()).square().sum(-1)
    return (errors_BT.sum() if mask_BT is None else (errors_BT * mask_BT).sum()) / scale


def relation_loss(student_BTC: Tensor, teacher_BTC: Tensor, mask_BT: Tensor | None, heads: int) -> Tensor:
    """Sum over tokens of the divergence of the teacher's relations from the student's, mean over heads. Scalar."""
    ours, theirs = (_log_relations(x, mask_BT, heads) for x in (student_BTC, teacher_BTC))
    divergence_BT = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1).mean(1)
    return divergence_BT.sum() if mask_BT is None else (divergence_BT * mask_BT).sum()


def _log_relations(x_BTC: Tensor, mask_BT: Tensor | None, heads: int) -> Tensor:
    """Logarithm of how much each token resembles each other one. *Shape:* ``[B, H, T, T]``."""
    x_BHTD = x_BTC.view(*x_BTC.shape[:2], heads, -1).transpose(1, 2)
    scores = (x_BHTD @ x_BHTD.transpose(2, 3)).float() / math.sqrt(x_BHTD.shape[-1])
    if mask_BT is not None:
        scores = scores.masked_fill(mask_BT[:, None, None, :] == 0, _MASKED)
    return F.log_softmax(scores, -1)


def score_distillation(
    model: nn.Module,
    loss: EncoderDistillationLoss,
    source: PretrainingSource,
    accelerator: Accelerator,
    *,
    rows: int,
    precision: str,
) -> Figures:
    """Compare student and teacher on held-out text, by all processes together.

    Args:
        model: A :class:`DistilledEncoder` in evaluation mode.
        loss: How.
        source: Held-out text.
        accelerator: The processes.
        rows: Rows to compare, rounded up to whole batches; at most an epoch of them.
        precision: Number format of activations, "fp32" or "bf16".

    Returns:
        ``held_out``: ``loss``, and the mean over tokens of each term, unweighted (see
        :meth:`EncoderDistillationLoss.terms`).
    """
    device = accelerator.device
    steps = min(source.steps_per_epoch, -(-rows // source.batch_size))
    sums: dict[str, Tensor] = {}
    counts = torch.zeros(len(loss.names) + 1, dtype=torch.float64, device=device)
    losses = torch.zeros(len(loss.names), dtype=torch.float64, device=device)
    # Every process takes part in every sum, so each reads at least one batch.
    first = min(accelerator.process_index, steps - 1)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for step in range(first, steps, accelerator.num_processes):
            own = float(accelerator.process_index < steps)
            batch = source.batch(step)
            terms = loss.terms(unwrapped(model), batch)
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64, device=device)) + own * value
            losses += own * loss.weighted(terms)
            counts += own * torch.tensor([*loss.count(batch), batch.tokens], dtype=torch.float64, device=device)
    names = sorted(sums)
    totals = torch.cat([losses, counts, torch.stack([sums[name] for name in names])])
    if accelerator.num_processes > 1:
        totals = accelerator.reduce(totals)
    losses, counts, values = torch.split(totals, [len(losses), len(counts), len(names)])
    own_counts = dict(zip(loss.names, counts.tolist(), strict=False))
    figures = {"loss": float((losses / counts[:-1].clamp(min=1)).sum())}
    for name, value in zip(names, values.tolist(), strict=True):
        figures[name] = value / own_counts.get(name, float(counts[-1]))
    return {"held_out": figures}
