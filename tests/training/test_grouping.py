from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from squeezebert import checkpoint
from squeezebert.data.collate import collate
from squeezebert.errors import InputError
from squeezebert.export import native
from squeezebert.model.grouped import GroupedLinear
from squeezebert.model.heads import HEADS, SqueezeBertForSequenceClassification
from squeezebert.model.squeezebert import SqueezeBert
from squeezebert.training import distillation, embedding_stage, loop
from squeezebert.training.finetune import finetune
from squeezebert.training.grouping import (
    OpenLinear,
    Order,
    apply_order,
    check_dense,
    closed,
    find_order,
    fully_closed,
    keep_order,
    open_groups,
    openness_at,
    order_of_checkpoint,
    set_openness,
)
from squeezebert.training.hidden_states import HiddenStateLoss
from squeezebert.training.losses import forward
from squeezebert.training.optimizer import build_optimizer
from squeezebert.training.settings import FinetuneSettings

Make = Callable[..., FinetuneSettings]

GROUPS = 4
FIELDS = ("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups")
DENSE: dict[str, Any] = dict.fromkeys(FIELDS, 1)
IDS = torch.from_numpy(np.random.default_rng(0).integers(5, 2000, (3, 17)))
MASK = (torch.arange(17) < torch.tensor([[17], [4], [11]])).long()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def dense(head: str = "sequence_classification") -> Any:
    """A dense model whose norms and biases are not those of a new one."""
    torch.manual_seed(0)
    model = checkpoint.load("tiny", head, initializer_range=0.2, **DENSE).model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def shuffled(model: nn.Module, seed: int) -> Order:
    """An order from chance, for the encoder of ``model``."""
    draw = np.random.default_rng(seed)
    config: Any = model.config
    layers = range(config.num_hidden_layers)

    def some(count: int) -> Any:
        return draw.permutation(count) % GROUPS

    return Order(
        0.25, some(config.hidden_size),
        [some(config.num_attention_heads) for _ in layers], [some(config.intermediate_size) for _ in layers],
    )  # fmt: skip


@pytest.mark.parametrize("head", [head for head in HEADS if head != "multiple_choice"])
@torch.inference_mode()
def test_an_order_changes_nothing_but_the_order(head: str) -> None:
    model = dense(head)
    want = model(IDS, MASK, output_hidden_states=True)
    order = shuffled(model, 1)
    apply_order(model, order)
    got = model(IDS, MASK, output_hidden_states=True)
    # Sums of up to 256 terms of order one in another order, through two layers.
    close = {"atol": 256 * torch.finfo(torch.float32).eps * 8, "rtol": 0.0}
    for name, theirs in want._asdict().items():
        if isinstance(theirs, torch.Tensor) and name != "last_hidden_state":
            torch.testing.assert_close(getattr(got, name), theirs, **close)
    for ours, theirs in zip(got.hidden_states, want.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs[..., order.places], **close)
    assert not torch.equal(order.places, torch.arange(64))


def test_groups_that_are_there_are_found() -> None:
    """A grouped model written as a dense one, its order lost: the blocks hold everything, and are found again."""
    model = dense()
    encoder = model.transformer
    open_groups(encoder, GROUPS)
    set_openness(encoder, 0.0)
    with torch.no_grad():
        for name, part in encoder.named_modules():
            if isinstance(part, OpenLinear):
                parent, _, child = name.rpartition(".")
                plain = GroupedLinear(part.in_features, part.out_features)
                plain.weight, plain.bias = part.weight, part.bias
                setattr(encoder.get_submodule(parent), child, plain)
        apply_order(encoder, shuffled(model, 2))
    order = find_order(encoder, GROUPS, lambda: model(IDS, MASK))
    assert order.kept == pytest.approx(1.0, abs=1e-6)
    for groups, size in ((order.channels, 16), *((each, 1) for each in order.heads), *((e, 64) for e in order.neurons)):
        assert np.bincount(groups).tolist() == [size] * GROUPS
    with torch.inference_mode():
        want = model(IDS, MASK).logits
        apply_order(encoder, order)
        open_groups(encoder, GROUPS)
        with fully_closed(model):
            got = model(IDS, MASK).logits
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_share_that_is_kept_by_hand() -> None:
    model = dense()
    seen: dict[str, torch.Tensor] = {}
    for name, part in model.transformer.named_modules():
        if isinstance(part, GroupedLinear):
            part.register_forward_pre_hook(lambda _, inputs, name=name: seen.__setitem__(name, inputs[0].detach()))
    order = find_order(model.transformer, GROUPS, lambda: model(IDS, MASK))
    shares = []
    for index, layer in enumerate(model.transformer.layers):
        heads = np.repeat(order.heads[index], 16)
        for name, rows, columns in (
            ("attention.query", heads, order.channels), ("attention.key", heads, order.channels),
            ("attention.value", heads, order.channels),
            ("feed_forward.intermediate", order.neurons[index], order.channels),
            ("feed_forward.output", order.channels, order.neurons[index]),
        ):  # fmt: skip
            weight = layer.get_submodule(name).weight.detach().double().numpy()
            inputs = seen[f"layers.{index}.{name}"].double().numpy()
            energy = weight**2 * (inputs.reshape(-1, inputs.shape[-1]) ** 2).mean(0)
            shares.append(energy[rows[:, None] == columns].sum() / energy.sum())
    assert order.kept == pytest.approx(np.mean(shares), rel=1e-9)
    assert order.kept > 0.27  # of random weights little more than a quarter can be had


@torch.inference_mode()
def test_from_dense_to_grouped() -> None:
    model = dense()
    want = model(IDS, MASK).logits
    weight = model.transformer.layers[0].feed_forward.intermediate.weight.clone()
    open_groups(model, GROUPS)
    torch.testing.assert_close(model(IDS, MASK).logits, want, atol=0, rtol=0)
    set_openness(model, 0.25)
    layer = model.transformer.layers[0].feed_forward.intermediate
    x = torch.randn(5, 64)
    faded = 0.25 * weight
    for group in range(GROUPS):
        rows, columns = slice(64 * group, 64 * (group + 1)), slice(16 * group, 16 * (group + 1))
        faded[rows, columns] = weight[rows, columns]
    torch.testing.assert_close(layer(x), x @ faded.T + layer.bias, atol=1e-5, rtol=0)
    assert not torch.allclose(model(IDS, MASK).logits, want)

    grouped = closed(model)
    assert isinstance(grouped, SqueezeBertForSequenceClassification)
    assert [getattr(grouped.config, name) for name in FIELDS] == [GROUPS] * 5
    assert grouped.transformer.config == grouped.config
    assert not grouped.training
    with fully_closed(model):
        torch.testing.assert_close(model(IDS, MASK).logits, grouped(IDS, MASK).logits, atol=0, rtol=0)
    assert layer.openness == 0.25  # as before
    assert closed(grouped) is grouped


def test_openness_falls_in_a_straight_line() -> None:
    assert [openness_at(step, 4) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert openness_at(0, 0) == 0.0


def off_the_blocks(weight: torch.Tensor) -> torch.Tensor:
    block = torch.block_diag(*[torch.ones([each // GROUPS for each in weight.shape])] * GROUPS)
    return weight[block == 0]


def test_gradients_pass_what_is_open_only() -> None:
    model = dense()
    open_groups(model, GROUPS)
    layer = model.transformer.layers[1].attention.query
    for openness in (0.5, 0.0):
        set_openness(model, openness)
        model.zero_grad()
        model(IDS, MASK).logits.square().sum().backward()
        assert (layer.weight.grad != 0).sum() == (64 * 64 if openness else 64 * 16)
        assert (off_the_blocks(layer.weight.grad).abs().max() == 0) == (openness == 0)


@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_a_closed_layer_learns_as_a_grouped_one(optimizer: Any) -> None:
    """LAMB asks for the norm of the weight, in which nothing may be left of what was off the blocks."""
    model = dense()
    open_groups(model, GROUPS)
    grouped = closed(model)
    weights = []
    for each in (model, grouped):
        steps = build_optimizer(each, name=optimizer, learning_rate=1e-2, weight_decay=0.01)
        for _ in range(3):
            set_openness(each, 0.0)
            each(IDS, MASK).logits.square().sum().backward()
            steps.step()
            steps.zero_grad()
        weights.append(closed(each).transformer.layers[0].feed_forward.output.weight)
    # Three steps of rounding, of weights of order 0.2.
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)


def test_an_order_is_kept() -> None:
    order = shuffled(dense(), 4)
    again = Order.from_dict(json.loads(json.dumps(order.to_dict())))
    assert torch.equal(again.places, order.places)
    assert torch.equal(again.attention_places(1), order.attention_places(1))
    assert [each.tolist() for each in again.neurons] == [each.tolist() for each in order.neurons]
    model = dense()
    with torch.no_grad():
        model.transformer.layers[0].attention.key.weight.zero_()
    with pytest.raises(InputError, match="all zero, or not finite"):
        find_order(model.transformer, GROUPS, lambda: model(IDS, MASK))


def test_an_exported_encoder_keeps_its_order(tmp_path: Path) -> None:
    model = dense().transformer
    order = shuffled(dense(), 5)
    checkpoint.save(model, tmp_path / "encoder")
    assert order_of_checkpoint(str(tmp_path / "encoder")) is None
    keep_order(tmp_path / "encoder", order)
    native.export(tmp_path / "encoder", tmp_path / "exported")
    kept = order_of_checkpoint(str(tmp_path / "exported"))
    assert kept is not None
    assert kept.to_dict() == order.to_dict()
    assert order_of_checkpoint("random:small") is None


def train_dense(settings: Make, tmp_path: Path) -> Path:
    """A dense classifier that has learned to tell the reviews apart."""
    finetune(settings(output=tmp_path / "vocabulary", epochs=1))
    torch.manual_seed(0)
    loaded = checkpoint.load("tiny", "sequence_classification", vocab=tmp_path / "vocabulary", **DENSE)
    checkpoint.save(loaded.model, tmp_path / "dense", tokenizer=loaded.tokenizer)
    trained = finetune(settings(output=tmp_path / "trained", model=tmp_path / "dense", epochs=20, dropout=0.0))
    assert trained is not None
    assert trained.metrics["mean"]["dev"]["accuracy"] == 1.0
    return trained.folder


def test_hidden_states_are_compared_channel_by_channel(settings: Make, tmp_path: Path) -> None:
    source = train_dense(settings, tmp_path)
    loaded = checkpoint.load(source)
    assert isinstance(loaded.model.transformer, SqueezeBert)
    assert loaded.tokenizer is not None
    order = shuffled(loaded.model, 3)
    apply_order(loaded.model.transformer, order)
    encodings = loaded.tokenizer.encode_batch(["a gripping film, in all", "a dull story"], max_length=32)
    batch = collate(encodings, indices=[0, 1])
    cpu = torch.device("cpu")
    with torch.inference_mode():
        states = forward(loaded.model.eval(), batch, cpu, hidden_states=True).hidden_states
    distances = []
    for each in (order, None):
        loss = HiddenStateLoss(
            str(source), loaded.config, loaded.tokenizer, max_length=32, weight=1.0, device=cpu, order=each
        )
        loss.calibrate(batch)
        distances.append(float(loss(states, batch)))
    assert distances[0] < 1e-9 < 0.1 < distances[1]


@torch.inference_mode()
def test_the_embedding_stage_compares_channel_by_channel() -> None:
    teacher, student = dense().transformer, dense().transformer
    student.load_state_dict(teacher.state_dict())
    order = shuffled(dense(), 3)
    apply_order(student, order)
    source = embedding_stage.RandomTokenSource(tokens=2000, pad_id=0, positions=512, types=2, count=64, seed=0)
    batch, cpu = source.batch(0, source.examples(0)), torch.device("cpu")
    errors = [
        float(embedding_stage._Loss(teacher.embeddings, cpu, batch, places)(student.embeddings.eval(), batch)) / 64
        for places in (order.places, None)
    ]
    assert errors[0] < 1e-9 < 0.1 < errors[1]


def test_finetuning_ends_with_groups(settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = train_dense(settings, tmp_path)
    chosen = {
        "model": source, "teacher": source, "hidden": 1.0, "groups": GROUPS, "closing": 0.5, "epochs": 10,
        "dropout": 0.0, "save_every": 5,
    }  # fmt: skip
    whole = finetune(settings(output=tmp_path / "whole", **chosen))
    assert whole is not None
    loaded = checkpoint.load(whole.folder)
    assert [getattr(loaded.config, name) for name in FIELDS] == [GROUPS] * 5
    assert isinstance(loaded.model.transformer, SqueezeBert)
    assert loaded.model.transformer.layers[0].attention.query.weight.shape == (64, 16)
    assert whole.metrics["mean"]["dev"]["accuracy"] >= 0.9
    assert "4 groups" in (whole.folder / "README.md").read_text(encoding="utf-8")

    # Trained further, it is compared with its teacher in the order that it has by then.
    orders = []
    real_loss = distillation.HiddenStateLoss

    def spy(*arguments: Any, order: Order | None, **others: Any) -> HiddenStateLoss:
        orders.append(order)
        return real_loss(*arguments, order=order, **others)

    monkeypatch.setattr(distillation, "HiddenStateLoss", spy)
    further = {"model": str(whole.folder), "teacher": source, "hidden": 1.0, "output": tmp_path / "further"}
    continued = finetune(settings(epochs=1, **further))
    assert continued is not None
    noted = (whole.folder / "order.json").read_bytes()
    assert [each and each.to_dict() for each in orders] == [json.loads(noted)]
    assert (continued.folder / "order.json").read_bytes() == noted

    # A teacher in the same order stands as it is; one in another is refused.
    finetune(settings(epochs=1, **{**further, "teacher": str(whole.folder), "output": tmp_path / "self"}))
    assert orders[1:] == [None]
    other = json.loads(noted)
    other["channels"] = other["channels"][::-1]
    (continued.folder / "order.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="were put in another order than the student's"):
        finetune(settings(epochs=1, **{**further, "teacher": str(continued.folder), "output": tmp_path / "other"}))
    (continued.folder / "order.json").write_text("{}")
    with pytest.raises(InputError, match=r"order\.json: holds no order of channels"):
        finetune(settings(epochs=1, **{**further, "teacher": str(continued.folder), "output": tmp_path / "other"}))

    (continued.folder / "order.json").write_text(json.dumps({**json.loads(noted), "heads": []}))
    with pytest.raises(InputError, match=r"order\.json: is the order of a model of other sizes"):
        finetune(settings(epochs=1, **{**further, "teacher": str(continued.folder), "output": tmp_path / "other"}))
    (continued.folder / "order.json").unlink()
    with pytest.raises(InputError, match="has groups, and nothing tells in which order its channels stand"):
        finetune(settings(epochs=1, **{**further, "teacher": str(continued.folder), "output": tmp_path / "other"}))

    # Stopped while the groups are closing, and resumed: the same weights.
    signals = iter([False] * 8 + [True] * 100)
    real = loop._in_any_process
    monkeypatch.setattr(loop, "_in_any_process", lambda accelerator, value: real(accelerator, next(signals)))
    with pytest.raises(KeyboardInterrupt):
        finetune(settings(output=tmp_path / "broken", **chosen))
    monkeypatch.setattr(loop, "_in_any_process", real)
    newest = max((tmp_path / "broken" / "seed-42" / "state").iterdir())
    assert 0 < int(newest.name.removeprefix("step-")) < 30
    with pytest.raises(InputError, match="groups was 4 when the run began, and is None now"):
        finetune(settings(output=tmp_path / "broken", resume=True, **{**chosen, "groups": 0, "closing": 0.7}))
    resumed = finetune(settings(output=tmp_path / "broken", resume=True, **chosen))
    assert resumed is not None
    assert (resumed.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_refusals(settings: Make, tmp_path: Path) -> None:
    for changes, message in (
        ({"groups": 1}, "groups must be 0, or at least 2"),
        ({"closing": 0.5}, "closing goes with groups"),
        ({"groups": 4, "closing": 1.5}, "closing must be within"),
        ({"groups": 4, "patience": 2}, "patience would stop"),
    ):
        with pytest.raises(InputError, match=message):
            settings(**changes)
    with pytest.raises(InputError, match="its layers have groups already"):
        finetune(settings(groups=4))
    config = dense().config
    check_dense(config, 4, "here")
    with pytest.raises(InputError, match="here: hidden_size 64 cannot be cut into 3 groups"):
        check_dense(config, 3, "here")
    with pytest.raises(InputError, match="num_attention_heads 4 cannot be cut into 8 groups"):
        check_dense(config, 8, "here")
