from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from squeezebert.data.pretraining import PretrainingBatch
from squeezebert.errors import InputError
from squeezebert.model.config import ModelConfig
from squeezebert.model.heads import SqueezeBertForMaskedLM, SqueezeBertForPreTraining
from squeezebert.model.squeezebert import SqueezeBert
from squeezebert.training.embedding_stage import RandomTokenSource
from squeezebert.training.encoder_distillation import (
    DistilledEncoder,
    EncoderDistillationLoss,
    layer_map,
    relation_loss,
    relative_error,
    score_distillation,
)
from squeezebert.training.recipes import DistillationRecipe

CPU = torch.device("cpu")


def _config(width: int = 24, layers: int = 3, groups: int = 2, **changes: Any) -> ModelConfig:
    names = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")
    return ModelConfig(
        vocab_size=30, hidden_size=width, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=2 * width,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3,
        **dict.fromkeys(names, groups), **changes,
    )  # fmt: skip


def _batch(seed: int = 0) -> PretrainingBatch:
    """Three rows of 9, 7 and 5 tokens; four of them masked."""
    draw = np.random.default_rng(seed)
    mask = (np.arange(9) < np.array([[9], [7], [5]])).astype(np.int64)
    ids = draw.integers(5, 30, (3, 9)) * mask
    positions = np.array([2, 4, 11, 20])
    labels = ids.reshape(-1)[positions].copy()
    ids.reshape(-1)[positions] = 4
    return PretrainingBatch(
        input_ids=ids, attention_mask=mask, token_type_ids=(np.arange(9) > 3) * mask, masked_positions=positions,
        masked_labels=labels, sentence_order_labels=None, token_indices=None, tokens=21,
    )  # fmt: skip


def _models(recipe: DistillationRecipe, student: ModelConfig, teacher: ModelConfig) -> tuple[Any, Any, Any]:
    torch.manual_seed(1)
    encoder = SqueezeBert(teacher).eval()
    torch.manual_seed(2)
    with_mlm = SqueezeBertForPreTraining if recipe.sentence_order else SqueezeBertForMaskedLM
    model = with_mlm(student) if recipe.mlm else SqueezeBert(student)
    wrapped = DistilledEncoder(model, teacher.hidden_size, recipe).eval()
    return wrapped, encoder, EncoderDistillationLoss(encoder, wrapped.encoder, recipe, CPU)


def test_relative_error_is_the_formula() -> None:
    draw = np.random.default_rng(0)
    s, t = (draw.normal(size=(2, 3, 5)).astype(np.float32) for _ in range(2))
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    each = ((s - t) ** 2).sum(-1) / 1.5
    both = torch.from_numpy(s), torch.from_numpy(t)
    assert relative_error(*both, None, 1.5).item() == pytest.approx(each.sum(), rel=1e-5)
    assert relative_error(*both, torch.from_numpy(mask), 1.5).item() == pytest.approx((each * mask).sum(), rel=1e-5)


@pytest.mark.parametrize("width", [12, 8])
def test_relations_are_the_formula(width: int) -> None:
    draw = np.random.default_rng(0)
    s, t = (draw.normal(size=(2, 5, channels)) for channels in (width, 12))
    lengths = (5, 3)
    mask = torch.from_numpy((np.arange(5) < np.array(lengths)[:, None]).astype(np.int64))
    expected = 0.0
    for row, length in enumerate(lengths):
        for head in range(4):
            scores: list[NDArray[Any]] = []
            for x in (s, t):
                size = x.shape[-1] // 4
                part = x[row, :length, head * size : (head + 1) * size]
                scores.append(part @ part.T / np.sqrt(size))
            p = softmax(scores[1], 1)
            expected += (p * (log_softmax(scores[1], 1) - log_softmax(scores[0], 1))).sum() / 4
    ours = relation_loss(torch.from_numpy(s).float(), torch.from_numpy(t).float(), mask, 4)
    assert ours.item() == pytest.approx(expected, rel=1e-4)
    same = torch.from_numpy(t).float()
    assert relation_loss(same, same, mask, 4).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("mlm", "order"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.75)])
def test_the_loss_is_the_weighted_sum_of_its_terms(mlm: float, order: float) -> None:
    recipe = DistillationRecipe(
        embedding=2.0, hidden=3.0, relations=0.25, sentence=1.5, mlm=mlm, sentence_order=order, last_layer=4.0
    )
    student, teacher, loss = _models(recipe, _config(), _config(groups=1))
    batch = _batch()
    loss.calibrate(batch)
    written = batch.input_ids.copy()
    written.reshape(-1)[batch.masked_positions] = batch.masked_labels
    # The student meets masks only where it is asked for what they hide; the teacher reads the text as it was written.
    read = batch.input_ids if mlm else written
    assert (read != written).any() == bool(mlm)
    inputs, inputs_of_teacher = (
        [torch.from_numpy(each) for each in (ids, batch.attention_mask, batch.token_type_ids)]
        for ids in (read, written)
    )
    mask = inputs[1].double().numpy()
    captured: dict[str, NDArray[Any]] = {}
    hooks = []
    for name, encoder in (("student", student.encoder), ("teacher", teacher)):
        for part in ("query", "key", "value"):
            module = getattr(encoder.layers[-1].attention, part)
            key = f"{name} {part}"
            hooks.append(
                module.register_forward_hook(
                    lambda _module, _inputs, output, key=key: captured.setdefault(key, output.detach())
                )
            )
    s = student.encoder(*inputs, output_hidden_states=True).hidden_states
    t = teacher(*inputs_of_teacher, output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    embedded = teacher(*inputs, output_hidden_states=True).hidden_states[0]
    errors = []
    for ours, theirs, usually in zip(s, [embedded, *t[1:]], t, strict=True):
        a, b, c = (each.detach().double().numpy() for each in (ours, theirs, usually))
        usual = ((c**2).sum(-1) * mask).sum() / 21
        errors.append((((a - b) ** 2).sum(-1) * mask).sum() / usual)
    relations = sum(
        relation_loss(captured[f"student {part}"], captured[f"teacher {part}"], inputs[1], 4).item()
        for part in ("query", "key", "value")
    )
    pooled = student.sentence_projection(student.encoder(*inputs).pooled).detach().double().numpy()
    means = (t[-1].detach().double().numpy() * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
    sentence = ((pooled - means) ** 2).sum() / (means**2).sum(-1).mean()
    expected = [2 * errors[0], 3 * (errors[1] + errors[2] + 4 * errors[3]) / 6, 0.25 * relations, 1.5 * sentence]
    if mlm:
        logits = student.model(*inputs, masked_positions=torch.from_numpy(batch.masked_positions)).logits
        scores = log_softmax(logits.detach().double().numpy(), 1)
        expected.append(-0.5 * scores[range(4), batch.masked_labels].sum())
    if order:
        batch = dataclasses.replace(batch, sentence_order_labels=np.array([1, 0, 1]))
        logits = student.model(*inputs).sentence_order_logits
        scores = log_softmax(logits.detach().double().numpy(), 1)
        expected.append(-0.75 * scores[range(3), [1, 0, 1]].sum())
    np.testing.assert_allclose(loss(student, batch).detach().numpy(), expected, rtol=1e-4)
    names = ("embedding_loss", "hidden_loss", "relation_loss", "sentence_loss", "mlm_loss", "sentence_order_loss")
    assert loss.names == names[: len(expected)]
    assert loss.count(batch) == (21, 21, 21, 3, 4, 3)[: len(expected)]


@pytest.mark.parametrize("name", ["embedding", "hidden", "relations", "sentence"])
def test_each_term_alone_for_a_narrower_student(name: str) -> None:
    """No layer widens what is not compared."""
    recipe = DistillationRecipe(**{"embedding": 0.0, "hidden": 0.0, name: 2.0})  # type: ignore[arg-type]
    student, _, loss = _models(recipe, _config(width=8), _config(groups=1))
    batch = _batch()
    loss.calibrate(batch)
    [value] = loss(student, batch).tolist()
    errors = {"embedding": ["embedding_error"], "hidden": [f"layer_{i}_error" for i in (1, 2, 3)]}
    assert set(loss.terms(student, batch)) == set(errors.get(name, [f"{name.removesuffix('s')}_loss"]))
    assert value > 0


def test_a_student_of_the_teachers_weights_has_no_error() -> None:
    student, teacher, loss = _models(DistillationRecipe(relations=1.0), _config(), _config())
    student.encoder.load_state_dict(teacher.state_dict())
    loss.calibrate(_batch())
    np.testing.assert_allclose(loss(student, _batch()).detach().numpy(), [0, 0, 0], atol=1e-4)


@pytest.mark.parametrize("sentence", [0.0, 1.0])
def test_gradients_reach_the_student_alone(sentence: float) -> None:
    recipe = DistillationRecipe(relations=1.0, mlm=1.0, sentence=sentence)
    student, teacher, loss = _models(recipe, _config(16), _config(24, groups=1))
    loss(student, _batch()).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    without = [name for name, p in student.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all((each.grad is not None) == bool(sentence) for each in student.encoder.pooler.parameters())
    assert isinstance(student.hidden_projection, torch.nn.Linear)


@pytest.mark.parametrize("width", [24, 16])
def test_a_student_comes_to_compute_what_its_teacher_computes(width: int) -> None:
    student, _, loss = _models(DistillationRecipe(), _config(width), _config(groups=1, layers=6))
    batch = _batch()
    loss.calibrate(batch)
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        terms = loss(student, batch)
        terms.sum().backward()
        optimizer.step()
    assert (terms / 21).max() < 0.01


def test_layers_are_spread_evenly_or_as_told() -> None:
    assert layer_map((), 6, 6) == [(n, n) for n in range(1, 7)]
    assert layer_map((), 3, 6) == [(1, 2), (2, 4), (3, 6)]
    assert layer_map((), 4, 6) == [(1, 2), (2, 3), (3, 5), (4, 6)]
    assert layer_map((), 4, 2) == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert layer_map((0, 5, 6), 3, 6) == [(2, 5), (3, 6)]
    for wrong in ((1, 2), (1, 2, 7), (0, 0, 0), (-1, 2, 3)):
        with pytest.raises(InputError, match="student's 3 layers"):
            layer_map(wrong, 3, 6)


def test_relation_heads_must_divide_both_widths() -> None:
    with pytest.raises(InputError, match="relation_heads 5 does not divide the student's hidden_size 24"):
        _models(DistillationRecipe(relations=1.0, relation_heads=5), _config(), _config())


def test_held_out_figures_are_means_over_tokens() -> None:
    recipe = DistillationRecipe(relations=0.5, mlm=0.5)
    student, _, loss = _models(recipe, _config(), _config(groups=1))

    class Source:
        steps_per_epoch = 2
        batch_size = 3

        def batch(self, step: int) -> PretrainingBatch:
            return _batch(step)

    figures = score_distillation(student, loss, Source(), Accelerator(cpu=True), rows=6, precision="fp32")  # type: ignore[arg-type]
    terms = [loss.terms(student, _batch(step)) for step in (0, 1)]
    held_out = figures["held_out"]
    for name in ("embedding_error", "layer_1_error", "layer_2_error", "layer_3_error", "relation_loss"):
        assert held_out[name] == pytest.approx(sum(each[name].item() for each in terms) / 42, rel=1e-4)
    assert held_out["mlm_loss"] == pytest.approx(sum(each["mlm_loss"].item() for each in terms) / 8, rel=1e-4)
    layers = (held_out["layer_1_error"] + held_out["layer_2_error"] + 2 * held_out["layer_3_error"]) / 4
    expected = held_out["embedding_error"] + layers + 0.5 * (held_out["relation_loss"] + held_out["mlm_loss"])
    assert held_out["loss"] == pytest.approx(expected, rel=1e-4)


def test_random_tokens_are_all_but_padding() -> None:
    source = RandomTokenSource(tokens=12, pad_id=3, positions=5, types=2, count=400, seed=1)
    batch = source.batch(7, source.examples(7))
    assert sorted(set(batch.ids.tolist())) == [0, 1, 2, *range(4, 12)]
    assert sorted(set(batch.positions.tolist())) == [0, 1, 2, 3, 4]
    assert sorted(set(batch.types.tolist())) == [0, 1]
    part = source.batch(7, np.array([5, 9]))
    assert part.ids.tolist() == batch.ids[[5, 9]].tolist()
    assert source.batch(8, source.examples(8)).ids.tolist() != batch.ids.tolist()
