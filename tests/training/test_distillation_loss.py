from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, log_softmax, softmax

from squeezebert import checkpoint
from squeezebert.data.collate import Batch, collate
from squeezebert.tokenizer import Tokenizer
from squeezebert.training.distillation_loss import DistillationLoss
from squeezebert.training.losses import ClassificationLoss

TEXTS = ["a great film", "dull", "the plot is not so good", "how moving", "what was the film about"]
KINDS: dict[str, tuple[str, list[Any]]] = {
    "single_label": ("single_label_classification", [0, 2, 1, 1, 2]),
    "multi_label": ("multi_label_classification", [(0, 1, 1), (0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0)]),
    "regression": ("regression", [0.5, 2.25, -1.0, 3.0, 0.0]),
}
CPU = torch.device("cpu")
# What a teacher said of eight examples; the batch holds five of them, in another order.
SAID = np.random.default_rng(1).normal(0, 2, (8, 3)).astype(np.float32)
INDICES = [6, 0, 3, 7, 2]


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, save_classifier: Callable[..., Path]) -> tuple[str, torch.nn.Module, Batch]:
    kind: str = request.param
    problem_type, labels = KINDS[kind]
    names = ("x",) if kind == "regression" else ("x", "y", "z")
    folder = save_classifier(names, problem_type=problem_type)
    encodings = Tokenizer.load(folder).encode_batch(TEXTS)
    return kind, checkpoint.load(folder).model, collate(encodings, labels, indices=INDICES, unpad=True)


def soft_targets(kind: str, temperature: float = 1.0) -> Callable[[Any], Any]:
    if kind == "regression":
        return lambda indices: SAID[indices, :1]
    answer = softmax(SAID / temperature, 1) if kind == "single_label" else expit(SAID / temperature)
    return lambda indices: answer[indices]


def backward(loss: Any, model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    model.zero_grad()
    total = loss(model, batch)
    total.sum().backward()
    return total.detach(), [None if p.grad is None else p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_loss_is_the_formula(case: tuple[str, torch.nn.Module, Batch], alpha: float, temperature: float) -> None:
    kind, model, batch = case
    if kind == "regression":
        temperature = 1.0
    targets = soft_targets(kind, temperature)
    loss = DistillationLoss(CPU, targets, alpha=alpha, temperature=temperature, labelled=8)
    ours = loss(model, batch)
    assert ours.shape == (1,)
    assert loss.count(batch) == (5,)
    ids, mask, types = map(torch.from_numpy, (batch.input_ids, batch.attention_mask, batch.token_type_ids))
    s = model(ids, mask, types).logits.detach().double().numpy()
    q, y = targets(INDICES).astype(np.float64), np.array(KINDS[kind][1])
    if kind == "regression":
        expected = ((s[:, 0] - alpha * q[:, 0] - (1 - alpha) * y) ** 2).sum()
    elif kind == "single_label":
        soft = -(q * log_softmax(s / temperature, 1)).sum(1)
        hard = -log_softmax(s, 1)[range(5), y]
        expected = (alpha * temperature**2 * soft + (1 - alpha) * hard).sum()
    else:
        soft = -(q * log_expit(s / temperature) + (1 - q) * log_expit(-s / temperature)).mean(1)
        hard = -(y * log_expit(s) + (1 - y) * log_expit(-s)).mean(1)
        expected = (alpha * temperature**2 * soft + (1 - alpha) * hard).sum()
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_alpha_0_is_plain_finetuning_bit_for_bit(case: tuple[str, torch.nn.Module, Batch]) -> None:
    kind, model, batch = case
    distilled = DistillationLoss(CPU, soft_targets(kind), alpha=0.0, temperature=3.0, labelled=8)
    ours, gradients = backward(distilled, model, batch)
    plain, expected = backward(ClassificationLoss(CPU), model, batch)
    assert torch.equal(ours, plain)
    assert all(
        (a is None and b is None) or torch.equal(a, b)  # type: ignore[arg-type]
        for a, b in zip(gradients, expected, strict=True)
    )


def test_alpha_1_never_looks_at_a_label(case: tuple[str, torch.nn.Module, Batch]) -> None:
    kind, model, batch = case
    loss = DistillationLoss(CPU, soft_targets(kind), alpha=1.0, temperature=1.0, labelled=8)
    bare = Batch(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids,
        labels=None, token_indices=batch.token_indices, indices=batch.indices,
    )  # fmt: skip
    assert torch.equal(loss(model, bare), loss(model, batch))


def test_unlabelled_examples_follow_the_teachers_alone(case: tuple[str, torch.nn.Module, Batch]) -> None:
    kind, model, batch = case
    # Examples 6 and 7 have no label: what stands in its place must not matter.
    mixed = DistillationLoss(CPU, soft_targets(kind), alpha=0.3, temperature=1.0, labelled=6)
    assert batch.labels is not None
    others = batch.labels.copy()
    others[[0, 3]] = batch.labels[[1, 2]] if kind != "single_label" else [1, 0]
    changed = Batch(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids,
        labels=others, token_indices=batch.token_indices, indices=batch.indices,
    )  # fmt: skip
    assert torch.equal(mixed(model, changed), mixed(model, batch))

    def losses(alpha: float) -> np.ndarray[Any, Any]:
        """Of each example alone."""
        loss = DistillationLoss(CPU, soft_targets(kind), alpha=alpha, temperature=1.0, labelled=8)
        rows = [np.array([row]) for row in range(5)]
        return np.array([
            loss(model, Batch(
                input_ids=batch.input_ids[row], attention_mask=batch.attention_mask[row],
                token_type_ids=batch.token_type_ids[row], labels=batch.labels[row],  # type: ignore[index]
                token_indices=None, indices=batch.indices[row],
            )).item() for row in rows
        ])  # fmt: skip

    expected = np.where(np.array(INDICES) < 6, losses(0.3), losses(1.0)).sum()
    assert mixed(model, batch).item() == pytest.approx(expected, rel=1e-5)
