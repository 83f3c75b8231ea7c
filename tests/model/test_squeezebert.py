"""The model against transformers' SqueezeBERT: values, losses, gradients; and where theirs is at fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from squeezebert.errors import InputError
from squeezebert.model import cost
from squeezebert.model.config import SIZES, ModelConfig
from squeezebert.model.grouped import FORMS, Form
from squeezebert.model.heads import HEADS
from squeezebert.model.squeezebert import SqueezeBert, set_form

transformers = pytest.importorskip("transformers")
TOLERANCE = 1e-5

GROUP_FIELDS = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")


def groups(*counts: int) -> dict[str, Any]:
    return dict(zip(GROUP_FIELDS, counts, strict=True))


CONFIGS: dict[str, dict[str, Any]] = {
    "equal groups": {},
    "unequal groups": groups(2, 2, 2, 2, 4, 1),
    "each its own": groups(4, 1, 2, 4, 1, 2),
    "no groups": groups(1, 1, 1, 1, 1, 1),
    "odd widths": {
        "hidden_size": 60,
        "num_attention_heads": 5,
        "intermediate_size": 90,
        "num_hidden_layers": 1,
        **groups(3, 5, 4, 2, 6, 10),
    },
    "three segments, tanh GELU": {"type_vocab_size": 3, "hidden_act": "gelu_new", "num_hidden_layers": 3},
}
SHAPES = [(1, 1), (2, 7), (3, 31)]
ARCHITECTURES = {
    "encoder": "SqueezeBertModel",
    "masked_lm": "SqueezeBertForMaskedLM",
    "sequence_classification": "SqueezeBertForSequenceClassification",
    "token_classification": "SqueezeBertForTokenClassification",
    "question_answering": "SqueezeBertForQuestionAnswering",
    "multiple_choice": "SqueezeBertForMultipleChoice",
}


def config(**changes: Any) -> ModelConfig:
    small = {
        "vocab_size": 97,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 96,
    }
    return ModelConfig(**{**small, "max_position_embeddings": 40, "num_labels": 3, **changes})


def theirs(ours: nn.Module, head: str, folder: Path) -> nn.Module:
    """The matching transformers model, its weights read from the file that ours wrote."""
    from squeezebert.checkpoint import save

    save(ours, folder)
    model = getattr(transformers, ARCHITECTURES[head]).from_pretrained(folder)
    # The published module takes its encoder's LayerNorm epsilon from a constant; give it ours to compare the rest.
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = ours.config.layer_norm_eps  # type: ignore[union-attr]
    return model.eval()


def inputs(shape: tuple[int, int], settings: ModelConfig) -> dict[str, Tensor]:
    """Random ids with random segments; every row but the first is padded at the end."""
    batch, tokens = shape
    lengths = [max(1, tokens - 3 * row) for row in range(batch)]
    mask = torch.stack([(torch.arange(tokens) < length).long() for length in lengths])
    ids = torch.randint(1, settings.vocab_size, shape) * mask
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, settings.type_vocab_size, shape) * mask,
    }


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(7)
    return


def build(head: str, settings: ModelConfig) -> nn.Module:
    """A model whose biases and norms are random too, so that none of them can be forgotten unseen."""
    model = HEADS[head](settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.mul_(3.0)
    return model


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_hidden_states_and_attentions_equal_transformers(
    changes: dict[str, Any], shape: tuple[int, int], tmp_path: Path
) -> None:
    settings = config(**changes)
    ours = build("encoder", settings)
    reference = theirs(ours, "encoder", tmp_path / "model")
    batch = inputs(shape, settings)
    with torch.no_grad():
        got = ours(**batch, output_hidden_states=True, output_attentions=True)
        want = reference(**batch, output_hidden_states=True, output_attentions=True)
        fast = ours(**batch)
    torch.testing.assert_close(got.last_hidden_state, want.last_hidden_state, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(fast.last_hidden_state, want.last_hidden_state, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(got.pooled, want.pooler_output, atol=TOLERANCE, rtol=0)
    assert len(got.hidden_states) == len(want.hidden_states) == settings.num_hidden_layers + 1
    for mine, their in zip(got.hidden_states, want.hidden_states, strict=True):
        torch.testing.assert_close(mine, their, atol=TOLERANCE, rtol=0)
    # The published module returns scores before the softmax; ours returns the probabilities that its name promises.
    for mine, their in zip(got.attentions, want.attentions, strict=True):
        torch.testing.assert_close(mine, their.softmax(-1), atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(mine.sum(-1), torch.ones_like(mine.sum(-1)), atol=TOLERANCE, rtol=0)


def labels_for(head: str, shape: tuple[int, int], settings: ModelConfig) -> dict[str, Tensor]:
    batch, tokens = shape
    if head == "masked_lm":
        labels = torch.randint(0, settings.vocab_size, shape)
        labels[0, 1:] = -100
        return {"labels": labels}
    if head == "token_classification":
        return {"labels": torch.randint(0, settings.num_labels, shape)}
    if head == "question_answering":
        return {
            "start_positions": torch.randint(0, tokens, (batch,)),
            "end_positions": torch.randint(0, tokens, (batch,)),
        }
    return {"labels": torch.randint(0, settings.num_labels, (batch,))}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("head", [head for head in ARCHITECTURES if head not in ("encoder", "multiple_choice")])
def test_logits_losses_and_gradients_equal_transformers(head: str, changes: dict[str, Any], tmp_path: Path) -> None:
    settings = config(**changes, **({"num_labels": 2} if head == "question_answering" else {}))
    ours = build(head, settings)
    reference = theirs(ours, head, tmp_path / "model")
    batch = inputs((3, 31), settings) | labels_for(head, (3, 31), settings)
    got, want = ours(**batch), reference(**batch)
    want_logits = torch.stack([want.start_logits, want.end_logits], -1) if head == "question_answering" else want.logits
    torch.testing.assert_close(got.logits, want_logits, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(got.loss, want.loss, atol=TOLERANCE, rtol=0)
    got.loss.backward()
    want.loss.backward()
    mine = ours.transformer.layers[0].attention.query.weight.grad  # type: ignore[union-attr, index]
    their = reference.transformer.encoder.layers[0].attention.query.weight.grad.squeeze(-1)  # type: ignore[union-attr]
    torch.testing.assert_close(mine, their, atol=TOLERANCE, rtol=TOLERANCE)
    mine = ours.transformer.embeddings.word.weight.grad  # type: ignore[union-attr]
    their = reference.transformer.embeddings.word_embeddings.weight.grad  # type: ignore[union-attr]
    torch.testing.assert_close(mine, their, atol=TOLERANCE, rtol=TOLERANCE)


def test_multiple_choice_equals_transformers(tmp_path: Path) -> None:
    settings = config()
    ours = build("multiple_choice", settings)
    reference = theirs(ours, "multiple_choice", tmp_path / "model")
    batch = {name: value.view(2, 3, 7) for name, value in inputs((6, 7), settings).items()}
    labels = torch.tensor([2, 0])
    got, want = ours(**batch, labels=labels), reference(**batch, labels=labels)
    torch.testing.assert_close(got.logits, want.logits, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(got.loss, want.loss, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem_type"),
    [
        (1, torch.tensor([0.5, 2.0]), None),
        (3, torch.tensor([2, 0]), None),
        (3, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), None),
        (3, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), "multi_label_classification"),
    ],
)
def test_problem_types_equal_transformers(num_labels: int, labels: Tensor, problem_type: Any, tmp_path: Path) -> None:
    settings = config(num_labels=num_labels, problem_type=problem_type)
    ours = build("sequence_classification", settings)
    reference = theirs(ours, "sequence_classification", tmp_path / "model")
    batch = inputs((2, 9), settings)
    torch.testing.assert_close(
        ours(**batch, labels=labels).loss, reference(**batch, labels=labels).loss, atol=TOLERANCE, rtol=0
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_forms_agree_in_the_whole_model_with_gradients(form: Form, changes: dict[str, Any]) -> None:
    settings = config(**changes)
    model = build("sequence_classification", settings)
    batch = inputs((3, 13), settings) | {"labels": torch.tensor([0, 2, 1])}
    set_form(model, "split")
    expected = model(**batch)
    expected.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    set_form(model, form)
    got = model(**batch)
    got.loss.backward()
    torch.testing.assert_close(got.logits, expected.logits, atol=TOLERANCE, rtol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, gradients[name], atol=TOLERANCE, rtol=TOLERANCE, msg=f"gradient of {name}"
        )


@pytest.mark.parametrize("head", ["encoder", "sequence_classification", "token_classification", "masked_lm"])
def test_leaving_padding_out_changes_nothing(head: str) -> None:
    settings = config()
    model = build(head, settings)
    batch = inputs((4, 19), settings)
    places = batch["attention_mask"].flatten().nonzero().squeeze(1)
    with torch.no_grad():
        padded = model(**batch, output_hidden_states=True)
        unpadded = model(**batch, token_indices=places, output_hidden_states=True)
    real = batch["attention_mask"].bool()
    for mine, their in zip(unpadded.hidden_states, padded.hidden_states, strict=True):
        torch.testing.assert_close(mine[real], their[real], atol=TOLERANCE, rtol=0)
        assert not mine[~real].any()
    if head == "sequence_classification":
        torch.testing.assert_close(unpadded.logits, padded.logits, atol=TOLERANCE, rtol=0)
    elif head != "encoder":
        torch.testing.assert_close(unpadded.logits[real], padded.logits[real], atol=TOLERANCE, rtol=TOLERANCE)


def test_a_sentence_alone_equals_itself_in_a_padded_batch() -> None:
    settings = config()
    model = build("encoder", settings)
    batch = inputs((3, 20), settings)
    with torch.no_grad():
        together = model(**batch).last_hidden_state
        for row in range(3):
            length = int(batch["attention_mask"][row].sum())
            alone = model(
                batch["input_ids"][row : row + 1, :length], None, batch["token_type_ids"][row : row + 1, :length]
            )
            torch.testing.assert_close(together[row, :length], alone.last_hidden_state[0], atol=TOLERANCE, rtol=0)


def test_scoring_chosen_positions_equals_scoring_all() -> None:
    settings = config()
    model = build("pretraining", settings)
    batch = inputs((3, 11), settings)
    positions = torch.tensor([2, 5, 12, 23])
    labels = torch.randint(0, settings.vocab_size, (4,))
    spread = torch.full((33,), -100)
    spread[positions] = labels
    order = torch.tensor([0, 1, -100])
    some = model(**batch, masked_positions=positions, labels=labels, sentence_order_labels=order)
    all_ = model(**batch, labels=spread.view(3, 11), sentence_order_labels=order)
    torch.testing.assert_close(some.logits, all_.logits.flatten(0, 1)[positions], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(some.loss, all_.loss, atol=TOLERANCE, rtol=0)
    parts = model(**batch, labels=spread.view(3, 11)).loss + model(**batch, sentence_order_labels=order).loss
    torch.testing.assert_close(some.loss, parts, atol=TOLERANCE, rtol=0)


def test_layer_norm_eps_reaches_every_norm() -> None:
    model = HEADS["pretraining"](config(layer_norm_eps=0.25))
    norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
    assert len(norms) == 2 * 2 + 2
    assert {norm.eps for norm in norms} == {0.25}


def test_padding_rows_of_the_vocabulary_are_never_predicted_and_not_trained() -> None:
    settings = config(vocab_size=96, real_vocab_size=90)
    model = build("masked_lm", settings)
    labels = torch.randint(0, 90, (2, 9))
    output = model(torch.randint(1, 90, (2, 9)), labels=labels)
    assert torch.isneginf(output.logits[..., 90:]).all()
    assert torch.isfinite(output.logits[..., :90]).all()
    expected = nn.functional.cross_entropy(output.logits[..., :90].flatten(0, 1), labels.flatten())
    torch.testing.assert_close(output.loss, expected, atol=TOLERANCE, rtol=0)
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert not model.mlm.bias.grad[90:].any()  # type: ignore[union-attr]
    assert not model.transformer.embeddings.word.weight.grad[90:].any()  # type: ignore[union-attr]


@pytest.mark.parametrize("head", ["sequence_classification", "masked_lm"])
def test_gradient_checkpointing_changes_nothing(head: str) -> None:
    settings = config(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    model = build(head, settings).train()
    batch = inputs((2, 9), settings)
    results = []
    for recompute in (False, True):
        model.transformer.gradient_checkpointing = recompute  # type: ignore[union-attr]
        model.zero_grad()
        torch.manual_seed(3)
        labels = torch.tensor([1, 2]) if head == "sequence_classification" else batch["input_ids"]
        loss = model(**batch, labels=labels).loss
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_exports_as_one_graph_with_dynamic_batch_and_length(form: Form) -> None:
    settings = config(vocab_size=64)
    model = build("sequence_classification", settings)
    set_form(model, form)
    batch, tokens = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("tokens", min=2, max=40)
    example = tuple(inputs((2, 11), settings).values())
    shapes = {name: {0: batch, 1: tokens} for name in ("input_ids", "attention_mask", "token_type_ids")}
    program = torch.export.export(model, example, dynamic_shapes=shapes).module()
    for shape in ((1, 2), (3, 17), (5, 40)):
        arguments = tuple(inputs(shape, settings).values())
        with torch.no_grad():
            torch.testing.assert_close(program(*arguments).logits, model(*arguments).logits, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("training", [False, True])
def test_compiles_without_graph_breaks(training: bool) -> None:
    settings = config(num_hidden_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = build("sequence_classification", settings).train(training)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 7), (3, 12)):
        batch = inputs(shape, settings) | {"labels": torch.randint(0, 3, (shape[0],))}
        with torch.set_grad_enabled(training):
            torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits, atol=TOLERANCE, rtol=0)
            if training:
                compiled(**batch).loss.backward()
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("head", "parameters"),
    [("encoder", 51_094_272), ("sequence_classification", 51_096_579), ("masked_lm", 51_716_928)],
)
def test_parameter_counts_of_the_paper(head: str, parameters: int) -> None:
    settings = ModelConfig(num_labels=3)
    with torch.device("meta"):
        model = HEADS[head](settings)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert cost.total(cost.table(settings, 128, head)).parameters == parameters


def test_cost_table_counts_every_head_exactly() -> None:
    settings = config()
    for head, kind in HEADS.items():
        with torch.device("meta"):
            model = kind(settings)
        assert cost.total(cost.table(settings, 9, head)).parameters == sum(p.numel() for p in model.parameters())


def test_operations_of_the_paper() -> None:
    encoder = cost.total(cost.table(ModelConfig(), tokens=128))
    assert round(2 * encoder.multiply_adds / 1e9, 2) == 7.40
    dense = ModelConfig(q_groups=1, k_groups=1, v_groups=1, intermediate_groups=1, output_groups=1)
    assert round(2 * cost.total(cost.table(dense, tokens=128)).multiply_adds / 1e9, 2) == 22.35


def test_multiply_adds_equal_those_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    settings = config()
    model = SqueezeBert(settings).eval()
    set_form(model, "split")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(1, 23, dtype=torch.long), output_attentions=True)
    assert counter.get_total_flops() == 2 * cost.total(cost.table(settings, tokens=23)).multiply_adds


def test_sizes_are_valid_and_named() -> None:
    assert set(SIZES) == {"base", "small", "tiny"}
    small = cost.total(cost.table(SIZES["small"])).parameters
    assert 12_000_000 <= small <= 19_000_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 50}, "num_attention_heads"),
        ({"q_groups": 5}, "q_groups"),
        ({"output_groups": 7}, "output_groups"),
        ({"intermediate_groups": 0}, "intermediate_groups"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob"),
        ({"real_vocab_size": 98}, "real_vocab_size"),
        ({"problem_type": "ranking"}, "problem_type"),
        ({"id2label": {0: "a", 2: "b", 3: "c"}}, "id2label"),
    ],
)
def test_impossible_configs_are_refused_by_field(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        config(**changes)
    assert "\n" not in str(caught.value)


def test_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="conv, split, bmm"):
        set_form(SqueezeBert(SIZES["tiny"]), "dense")  # type: ignore[arg-type]
