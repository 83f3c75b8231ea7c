"""A dense encoder, a BERT, becomes a SqueezeBERT while it trains: what its groups will not have fades step by step.

Weights from random numbers have to learn everything anew; here they begin as the dense encoder's own. Two stages:

1. :func:`find_order` and :func:`apply_order` change nothing that the encoder computes. Channels, attention heads and
   feed-forward neurons come in the order in which the blocks of the future groups hold much of the layers' weight: two
   fifths of all-MiniLM-L6-v2's, where chance gives a quarter.
2. :func:`open_groups` multiplies the entries off the blocks by a factor, which :func:`set_openness` takes from 1 to
   0 during training. What is left at 0 is a grouped layer: :func:`closed`.

It is structured pruning, with distillation beside it as in CoFi (Xia et al. 2022), onto the structure of Iandola et al.
2020, section 3.2, which is fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch import Tensor, nn

from squeezebert import folder as folders
from squeezebert.errors import InputError
from squeezebert.files import read_json, write_json
from squeezebert.model.attention import SelfAttention
from squeezebert.model.config import ModelConfig
from squeezebert.model.grouped import GroupedLinear, grouped_linear
from squeezebert.model.heads import (
    MaskedLanguageModel,
    SqueezeBertForQuestionAnswering,
    SqueezeBertForTokenClassification,
)
from squeezebert.model.layer import FeedForward, Layer
from squeezebert.model.squeezebert import SqueezeBert

Float = NDArray[np.float64]
Int64 = NDArray[np.int64]

_FIELDS = ("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups")
_ALL_FIELDS = (*_FIELDS, "post_attention_groups")
_RESTARTS, _ROUNDS, _TOLERANCE = 3, 30, 1e-4


def check_dense(config: ModelConfig, groups: int, source: str) -> None:
    """Make sure that a model's layers can be cut into groups.

    Raises:
        InputError: They have groups already, or channels or heads do not divide.
    """
    if any(getattr(config, name) != 1 for name in _ALL_FIELDS):
        raise InputError(f"{source}: its layers have groups already; give a dense model, such as a converted BERT")
    for name in ("hidden_size", "num_attention_heads", "intermediate_size"):
        value = getattr(config, name)
        if groups < 2 or value % groups:
            raise InputError(
                f"{source}: {name} {value} cannot be cut into {groups} groups; take a divisor of it above 1"
            )


@dataclass
class Order:
    """Groups of everything in an encoder that has an order."""

    kept: float
    """Share of the layers' squared weight, times its inputs' mean square, that lies on the blocks; mean over layers."""
    channels: Int64
    """Group of each channel of the hidden states. *Shape:* ``[C]``."""
    heads: list[Int64] = field(default_factory=list)
    """Group of each attention head, by layer. *Shape:* ``[H]``."""
    neurons: list[Int64] = field(default_factory=list)
    """Group of each feed-forward neuron, by layer. *Shape:* ``[I]``."""

    def to_dict(self) -> dict[str, Any]:
        """Fields, ready for JSON."""
        layers = {name: [each.tolist() for each in getattr(self, name)] for name in ("heads", "neurons")}
        return {"kept": self.kept, "channels": self.channels.tolist(), **layers}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Order:
        """What :meth:`to_dict` gave."""
        heads, neurons = ([np.asarray(each) for each in values[name]] for name in ("heads", "neurons"))
        return cls(values["kept"], np.asarray(values["channels"]), heads, neurons)

    def describe(self) -> str:
        """For people."""
        groups = int(self.channels.max()) + 1
        return (
            f"its layers are cut into {groups} groups, which hold {self.kept:.0%} of their squared weights times "
            "squared inputs"
        )

    @property
    def places(self) -> Tensor:
        """Former place of each channel in the new order. *Shape:* ``[C]``."""
        return _by_group(self.channels)

    def attention_places(self, layer: int) -> Tensor:
        """Former place of each channel of a layer's queries, keys and values. *Shape:* ``[C]``."""
        size = len(self.channels) // len(self.heads[layer])
        return (_by_group(self.heads[layer])[:, None] * size + torch.arange(size)).flatten()


def order_of_run(
    accelerator: Accelerator, folder: Path, model: nn.Module, groups: int, source: str, read: Callable[[], object]
) -> Order:
    """The order of a run: the one in its folder, or what the first process finds; the same in all processes.

    Args:
        accelerator: The processes.
        folder: The run's.
        model: Dense; an encoder, or one of :data:`squeezebert.model.heads.HEADS`.
        groups: To cut its layers into.
        source: What messages call the model.
        read: As for :func:`find_order`.

    Raises:
        InputError: As :func:`check_dense` and :func:`find_order`.
    """
    encoder = _encoder(model)
    check_dense(encoder.config, groups, source)
    path, order = folder / folders.ORDER, None
    if accelerator.is_main_process:
        order = Order.from_dict(read_json(path)) if path.exists() else find_order(encoder, groups, read)
    agreed: Order = broadcast_object_list([order])[0]
    return agreed


def order_of_checkpoint(source: str) -> Order | None:
    """The order in which a former run put its model, noted beside it; None: in none that is known.

    Args:
        source: Folder, hub id, model of the package or size name.

    Raises:
        InputError: There is no such folder, or the note cannot be read.
    """
    if folders.is_size(source):
        return None
    folder = folders.resolve(source)
    path = folder / folders.ORDER
    if not path.exists():
        return None
    try:
        order = Order.from_dict(read_json(path))
        found = [len(each) for each in (order.channels, *order.heads, *order.neurons)]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: holds no order of channels ({error!r}); take the one that the run wrote") from None
    config = folders.read_config(folder)
    layers = config.num_hidden_layers
    wanted = [config.hidden_size, *[config.num_attention_heads] * layers, *[config.intermediate_size] * layers]
    if found != wanted:
        raise InputError(f"{path}: is the order of a model of other sizes; take the one that the run wrote")
    return order


def order_beside(teacher: str | None, student: Order | None) -> Order | None:
    """The order in which a teacher's channels are to be put, so that they stand as the student's do; None: as they are.

    Raises:
        InputError: The teacher was put in another order than the student, or in one that nothing tells.
    """
    if teacher is None or student is None:
        return student
    taught = order_of_checkpoint(teacher)
    if taught is None:
        config = folders.read_object(folders.resolve(teacher) / folders.CONFIG)
        if any(config.get(name, 1) != 1 for name in _FIELDS):
            raise InputError(
                f"{teacher}: has groups, and nothing tells in which order its channels stand; take what the student "
                "came from, or compare no hidden states"
            )
        return student
    if taught.to_dict() != student.to_dict():
        raise InputError(
            f"{teacher}: its channels were put in another order than the student's; take what it came from"
        )
    return None


def keep_order(folder: Path, order: Order) -> None:
    """Note the order of a run in its folder: a resumed one may find another, by rounding, and a later one needs it."""
    write_json(folder / folders.ORDER, order.to_dict())


def find_order(encoder: SqueezeBert, groups: int, read: Callable[[], object], *, seed: int = 0) -> Order:
    """Find the order of channels, heads and neurons that suits groups.

    Given groups of channels, each layer's heads and neurons go where most of their weight is; given those, so do the
    channels, which all layers share; until nothing improves, from a few random starts. All groups are of one size. A
    weight counts by its square times the mean square of its input, and every layer alike.

    Args:
        encoder: A dense one (:func:`check_dense`).
        groups: A divisor of hidden size, heads and intermediate size.
        read: Lets the encoder read some texts, during which its layers' inputs are measured.
        seed: Of the random starts.

    Raises:
        InputError: A layer's weights or inputs are all zero, or not finite.
    """
    energies = _energies(encoder, read)
    heads, channels = encoder.config.num_attention_heads, encoder.config.hidden_size
    generator, best = np.random.default_rng(seed), Order(-1.0, np.empty(0, dtype=np.int64))
    for _ in range(_RESTARTS):
        groups_C, kept = generator.permutation(channels) % groups, -1.0
        for _ in range(_ROUNDS):
            member_CG, votes_CG = np.eye(groups)[groups_C], np.zeros((channels, groups))
            order = Order(0.0, groups_C)
            for attention_CC, wide_IC in energies:
                for unit_NC, kinds in ((attention_CC.reshape(heads, -1, channels).sum(1), order.heads),
                                       (wide_IC, order.neurons)):  # fmt: skip
                    kinds.append(_balanced(unit_NC @ member_CG))
                    member_NG = np.eye(groups)[kinds[-1]]
                    votes_CG += unit_NC.T @ member_NG
                    order.kept += float(((unit_NC @ member_CG) * member_NG).sum())
            best = max(best, order, key=lambda each: each.kept)
            if order.kept <= kept * (1 + _TOLERANCE):
                break
            kept, groups_C = order.kept, _balanced(votes_CG)
    best.kept /= sum(float(attention.sum() + wide.sum()) for attention, wide in energies)
    return best


def _energies(encoder: SqueezeBert, read: Callable[[], object]) -> list[tuple[Float, Float]]:
    """Of each layer: of query, key and value ``[out, in]``; of the feed-forward part ``[I, C]``."""
    sums: dict[nn.Module, Tensor] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        square = inputs[0].detach().float().flatten(0, -2).square().sum(0, dtype=torch.float64)
        sums[layer] = sums[layer] + square if layer in sums else square

    def energy(layer: GroupedLinear) -> Float:
        weighted = layer.weight.detach().double().square() * sums[layer]
        values: Float = (weighted / weighted.sum()).cpu().numpy()
        if not np.isfinite(values).all():
            raise InputError("a layer's weights or inputs are all zero, or not finite, so no order can be found")
        return values

    layers = [part for part in encoder.layers if isinstance(part, Layer)]
    parts = [(each.attention, each.feed_forward) for each in layers]
    watched = [part for a, f in parts for part in (a.query, a.key, a.value, f.intermediate, f.output)]
    handles = [part.register_forward_pre_hook(look) for part in watched]
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            read()
    finally:
        encoder.train(training)
        for handle in handles:
            handle.remove()
    return [
        (energy(a.query) + energy(a.key) + energy(a.value), energy(f.intermediate) + energy(f.output).T)
        for a, f in parts
    ]


def _balanced(score_NG: Float) -> Int64:
    """A group for each, equally many in every group; who has most to lose chooses first."""
    count, groups = score_NG.shape
    room, chosen = np.full(groups, count // groups), np.empty(count, dtype=np.int64)
    ranked_NG = np.sort(score_NG, axis=1)
    for index in np.argsort(ranked_NG[:, -2] - ranked_NG[:, -1], kind="stable"):
        chosen[index] = np.argmax(np.where(room > 0, score_NG[index], -np.inf))
        room[chosen[index]] -= 1
    return chosen


@torch.no_grad()
def apply_order(model: nn.Module, order: Order) -> None:
    """Put a model in order, in place. It computes the same, but for the order of its hidden states' channels.

    Args:
        model: An encoder, or one of :data:`squeezebert.model.heads.HEADS`.
        order: Of its encoder.
    """
    channels, encoder = order.places, _encoder(model)
    for table in (encoder.embeddings.word, encoder.embeddings.position, encoder.embeddings.token_type):
        table.weight.copy_(table.weight[:, channels])
    _order_vector(encoder.embeddings.norm, channels)
    for index, (layer, groups_I) in enumerate(zip(encoder.layers, order.neurons, strict=True)):
        assert isinstance(layer, Layer)
        attention, feed_forward = layer.attention, layer.feed_forward
        inside = order.attention_places(index)
        neurons = _by_group(groups_I)
        for part in (attention.query, attention.key, attention.value):
            _order_matrix(part, inside, channels)
        _order_matrix(attention.output, channels, inside)
        _order_matrix(feed_forward.intermediate, neurons, channels)
        _order_matrix(feed_forward.output, channels, neurons)
        _order_vector(layer.attention_norm, channels)
        _order_vector(layer.feed_forward_norm, channels)
    # The pooled vector keeps its order, and so do the heads that read it.
    encoder.pooler.dense.weight.copy_(encoder.pooler.dense.weight[:, channels])
    for each in model.modules():
        if isinstance(each, MaskedLanguageModel):  # its decoder is the word embedding
            _order_matrix(each.transform, channels, channels)
            _order_vector(each.norm, channels)
    if isinstance(model, (SqueezeBertForTokenClassification, SqueezeBertForQuestionAnswering)):
        last = model.classifier if isinstance(model, SqueezeBertForTokenClassification) else model.qa_outputs
        last.weight.copy_(last.weight[:, channels])


def reordered(theirs: Tensor, places: Tensor | None) -> Tensor:
    """Channels of a teacher in the order of a student that was like it: ``[..., C]`` to the same.

    Args:
        theirs: The teacher's vectors.
        places: :attr:`Order.places`, or :meth:`Order.attention_places`; None: the student is in no other order.
    """
    return theirs if places is None else theirs[..., places]


def _encoder(model: nn.Module) -> SqueezeBert:
    encoder = model if isinstance(model, SqueezeBert) else model.transformer
    assert isinstance(encoder, SqueezeBert)
    return encoder


def _by_group(groups_N: Int64) -> Tensor:
    return torch.from_numpy(np.argsort(groups_N, kind="stable"))


def _order_matrix(layer: GroupedLinear, rows: Tensor, columns: Tensor) -> None:
    layer.weight.copy_(layer.weight[rows][:, columns])
    layer.bias.copy_(layer.bias[rows])


def _order_vector(norm: nn.LayerNorm, channels: Tensor) -> None:
    norm.weight.copy_(norm.weight[channels])
    norm.bias.copy_(norm.bias[channels])


class OpenLinear(GroupedLinear):
    """A dense layer on its way to groups: entries off the diagonal blocks are multiplied by ``openness``.

    Args:
        layer: The dense layer, whose weight and bias it takes over.
        groups: Diagonal blocks.

    Attributes:
        openness: From 1, a dense layer, to 0, a grouped one, which is then computed as such.
    """

    def __init__(self, layer: GroupedLinear, groups: int) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.weight, self.bias = layer.weight, layer.bias
        self.future_groups = groups
        self.openness = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: ``[..., in]`` to ``[..., out]``."""
        if not self.openness:
            return grouped_linear(x, self.blocks(), self.bias, self.future_groups, self.form)
        return grouped_linear(x, self.faded(), self.bias, 1, self.form)

    def faded(self) -> Tensor:
        """The weight that is applied while the layer is open: ``[out, in]``."""
        own_GG = torch.eye(self.future_groups, device=self.weight.device)
        factor_GG = own_GG + self.openness * (1 - own_GG)
        return (self._by_group(self.weight) * factor_GG[:, None, :, None]).view_as(self.weight)

    @torch.no_grad()
    def forget(self) -> None:
        """Set what is off the blocks to 0, in place."""
        own_GG = torch.eye(self.future_groups, device=self.weight.device)
        self._by_group(self.weight).mul_(own_GG[:, None, :, None])

    def _by_group(self, weight: Tensor) -> Tensor:
        """A view of ``[out, in]``: ``[G, out / G, G, in / G]``."""
        return weight.view(self.future_groups, -1, self.future_groups, self.in_features // self.future_groups)

    def blocks(self) -> Tensor:
        """What is left of the weight: ``[out, in / groups]``, as a grouped layer stores it."""
        rows = self.weight.chunk(self.future_groups, 0)
        return torch.cat([each.chunk(self.future_groups, 1)[index] for index, each in enumerate(rows)])

    def pack(self) -> None:
        """Does nothing: the weight that is applied is not the one that is stored."""


def open_groups(model: nn.Module, groups: int) -> None:
    """Make the layers of a dense model that will have groups :class:`OpenLinear`; openness begins at 1."""
    for part in list(model.modules()):
        if isinstance(part, SelfAttention):
            part.query, part.key, part.value = (OpenLinear(each, groups) for each in (part.query, part.key, part.value))
        elif isinstance(part, FeedForward):
            part.intermediate, part.output = OpenLinear(part.intermediate, groups), OpenLinear(part.output, groups)


def grouped_config(config: ModelConfig, groups: int) -> ModelConfig:
    """Sizes of a dense model whose layers have been cut."""
    return config.replace(**dict.fromkeys(_FIELDS, groups))


def openness_at(step: int, closing_steps: float) -> float:
    """The factor in a step, counted from 0: it falls in a straight line, to 0 from ``closing_steps`` on."""
    return max(0.0, 1.0 - step / closing_steps) if closing_steps > 0 else 0.0


def set_openness(model: nn.Module, openness: float) -> None:
    """Multiply what is off the blocks by ``openness``, from 1 (dense) to 0 (grouped).

    At 0 it is forgotten, too: a norm of the weight, such as LAMB's, is then that of the grouped layer.
    """
    for layer in _open_layers(model).values():
        layer.openness = openness
        if not openness:
            layer.forget()


@contextmanager
def fully_closed(model: nn.Module) -> Iterator[None]:
    """Compute as at openness 0 for a while; a model without open layers computes as ever."""
    layers = _open_layers(model).values()
    before = [layer.openness for layer in layers]
    for layer in layers:
        layer.openness = 0.0
    try:
        yield
    finally:
        for layer, openness in zip(layers, before, strict=True):
            layer.openness = openness


@torch.no_grad()
def closed(model: nn.Module) -> nn.Module:
    """The grouped model that is left at openness 0; a model without open layers is given back as it is.

    Args:
        model: One of :data:`squeezebert.model.heads.HEADS`; stays as it is.

    Returns:
        A new model of its class; its ``config`` has the groups.
    """
    layers = _open_layers(model)
    if not layers:
        return model
    groups = next(iter(layers.values())).future_groups
    config: ModelConfig = model.config  # type: ignore[assignment]
    grouped: nn.Module = type(model)(grouped_config(config, groups))
    grouped.load_state_dict(model.state_dict() | {f"{name}.weight": layer.blocks() for name, layer in layers.items()})
    return grouped.to(next(model.parameters()).device).train(model.training)


def _open_layers(model: nn.Module) -> dict[str, OpenLinear]:
    return {name: part for name, part in model.named_modules() if isinstance(part, OpenLinear)}
