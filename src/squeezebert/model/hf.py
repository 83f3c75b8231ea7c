"""Published names of weights and config fields <-> ours. No other file of the package says a published name.

The published layout is that of huggingface.co/squeezebert and of ``transformers``' SqueezeBert classes. It differs from
ours in three ways: names; the weight of every layer inside the encoder carries a last axis of 1 (a kernel-1 Conv1d:
``[out, in / groups, 1]``, ours ``[out, in / groups]``); and a tied copy of the word embedding may stand under
``cls.predictions.decoder``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from squeezebert.errors import InputError
from squeezebert.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values", "Tensor", NDArray[Any])

MODEL_TYPE = "squeezebert"
PREFIX = "transformer."
"""Stands before the encoder's names wherever a head is present; the bare encoder is published with or without it."""

# (published, ours) of every module that owns weights; {n} is the layer's number.
_ENCODER = (
    ("embeddings.word_embeddings", "embeddings.word"),
    ("embeddings.position_embeddings", "embeddings.position"),
    ("embeddings.token_type_embeddings", "embeddings.token_type"),
    ("embeddings.LayerNorm", "embeddings.norm"),
    ("encoder.layers.{n}.attention.query", "layers.{n}.attention.query"),
    ("encoder.layers.{n}.attention.key", "layers.{n}.attention.key"),
    ("encoder.layers.{n}.attention.value", "layers.{n}.attention.value"),
    ("encoder.layers.{n}.post_attention.conv1d", "layers.{n}.attention.output"),
    ("encoder.layers.{n}.post_attention.layernorm", "layers.{n}.attention_norm"),
    ("encoder.layers.{n}.intermediate.conv1d", "layers.{n}.feed_forward.intermediate"),
    ("encoder.layers.{n}.output.conv1d", "layers.{n}.feed_forward.output"),
    ("encoder.layers.{n}.output.layernorm", "layers.{n}.feed_forward_norm"),
    ("pooler.dense", "pooler.dense"),
)
_HEADS = (
    ("cls.predictions.transform.dense", "mlm.transform"),
    ("cls.predictions.transform.LayerNorm", "mlm.norm"),
    ("cls.predictions", "mlm"),
    ("cls.seq_relationship", "sentence_order"),
    ("classifier", "classifier"),
    ("qa_outputs", "qa_outputs"),
)
_TO_OURS = dict(_ENCODER + _HEADS)
_TO_PUBLISHED = {ours: published for published, ours in _ENCODER + _HEADS}
_ENCODER_MODULES = frozenset(ours for _, ours in _ENCODER)
_CONVOLUTIONS = frozenset(
    ours for published, ours in _ENCODER if published.startswith("encoder.") and "norm" not in ours
)

# Not parameters: a buffer of old files, and copies of tied parameters.
_POSITION_IDS = "embeddings.position_ids"
_TIED_WEIGHT = "cls.predictions.decoder.weight"
_TIED_BIAS = "cls.predictions.decoder.bias"

ARCHITECTURES = {
    "encoder": "SqueezeBertModel",
    "sequence_classification": "SqueezeBertForSequenceClassification",
    "masked_lm": "SqueezeBertForMaskedLM",
    # No class of transformers; its SqueezeBertForMaskedLM reads these files and calls cls.seq_relationship unexpected.
    "pretraining": "SqueezeBertForPreTraining",
    "token_classification": "SqueezeBertForTokenClassification",
    "question_answering": "SqueezeBertForQuestionAnswering",
    "multiple_choice": "SqueezeBertForMultipleChoice",
}
"""Head -> name of the matching ``transformers`` class, as ``config.json`` holds it under ``architectures``."""


def _split(name: str) -> tuple[str, str, str]:
    """Module with its layer number as ``{n}``, the number, and the parameter's own name."""
    module, _, leaf = name.rpartition(".")
    number = re.search(r"(?<=\blayers\.)\d+(?=\.)", module)
    if number is None:
        return module, "", leaf
    return module[: number.start()] + "{n}" + module[number.end() :], number.group(), leaf


def is_grouped_weight(name: str) -> bool:
    """Whether our ``name`` is a weight that is published with a last axis of 1."""
    module, _, leaf = _split(name.removeprefix(PREFIX))
    return leaf == "weight" and module in _CONVOLUTIONS


def to_ours(name: str) -> str | None:
    """Our name of a published parameter, without the encoder's prefix; None: not a parameter that we know."""
    module, number, leaf = _split(name.removeprefix(PREFIX))
    ours = _TO_OURS.get(module)
    if ours is None or leaf not in ("weight", "bias") or (ours == "mlm" and leaf == "weight"):
        return None
    if name.startswith(PREFIX) and ours not in _ENCODER_MODULES:
        return None
    return f"{ours.replace('{n}', number)}.{leaf}"


def is_ours(name: str) -> bool:
    """Whether ``name`` is that of a parameter of ours, of any number of layers."""
    return _split(name.removeprefix(PREFIX))[0] in _TO_PUBLISHED


def to_published(name: str) -> str:
    """Published name of our parameter ``name``, with the encoder's prefix where ``name`` has it."""
    prefix = PREFIX if name.startswith(PREFIX) else ""
    module, number, leaf = _split(name.removeprefix(PREFIX))
    return f"{prefix}{_TO_PUBLISHED[module].replace('{n}', number)}.{leaf}"


def published_shape(name: str, shape: Iterable[int]) -> tuple[int, ...]:
    """Shape under which our parameter ``name`` of ``shape`` is published."""
    return (*shape, 1) if is_grouped_weight(name) else tuple(shape)


@dataclass(frozen=True)
class Renamed:
    """A published state under our names."""

    tensors: dict[str, Any]
    """Our name -> tensor, kernel axis removed."""
    names: dict[str, str]
    """Our name -> the name in the file."""
    unexpected: tuple[str, ...]
    """Names in the file that are no parameter of any head."""


def state_to_ours(published: Mapping[str, Any], head: str) -> Renamed:
    """Rename a published state for ``head``'s class, and drop buffers and tied copies.

    Args:
        published: Tensors (torch's or NumPy's) by published name, the encoder's with or without its prefix.
        head: A key of :data:`squeezebert.model.heads.HEADS`.

    Raises:
        InputError: A parameter stands in it twice, once with and once without the prefix.
    """
    tensors: dict[str, Any] = {}
    names: dict[str, str] = {}
    unexpected = []
    for name, tensor in published.items():
        if name.removeprefix(PREFIX) == _POSITION_IDS or name in (_TIED_WEIGHT, _TIED_BIAS):
            continue
        ours = to_ours(name)
        if ours is None:
            unexpected.append(name)
            continue
        if head != "encoder" and _split(ours)[0] in _ENCODER_MODULES:
            ours = PREFIX + ours
        if ours in tensors:
            raise InputError(f"{name} and {names[ours]} are the same parameter; keep one of them")
        one_kernel = is_grouped_weight(ours) and tensor.ndim == 3 and tensor.shape[-1] == 1
        tensors[ours] = tensor.squeeze(-1) if one_kernel else tensor
        names[ours] = name
    if _TIED_BIAS in published and "mlm.bias" not in tensors:
        tensors["mlm.bias"], names["mlm.bias"] = published[_TIED_BIAS], _TIED_BIAS
    return Renamed(tensors, names, tuple(unexpected))


def state_to_published(state: Mapping[str, Values]) -> dict[str, Values]:
    """Rename our state, of torch or NumPy, for publication. Tied copies are left out, as ``transformers`` does."""
    return {
        to_published(name): tensor[..., None] if is_grouped_weight(name) else tensor for name, tensor in state.items()
    }


def decoder_is_tied(published: Mapping[str, Any]) -> bool:
    """Whether the decoder of a published masked-language-model head is the word embedding, or absent."""
    decoder = published.get(_TIED_WEIGHT)
    embedding = next((tensor for name, tensor in published.items() if to_ours(name) == "embeddings.word.weight"), None)
    if decoder is None or embedding is None:
        return True
    return decoder.shape == embedding.shape and bool((decoder == embedding).all())


def find_head(names: Iterable[str], architectures: Sequence[str] = ()) -> str:
    """Which head a published state carries.

    Args:
        names: Published names.
        architectures: The field of that name in ``config.json``; it only decides between the heads that share the
            name ``classifier``, sequence classification being the default.
    """
    modules = {name.rpartition(".")[0] for name in names}
    if "cls.seq_relationship" in modules:
        return "pretraining"
    if "cls.predictions.transform.dense" in modules:
        return "masked_lm"
    if "qa_outputs" in modules:
        return "question_answering"
    if "classifier" in modules:
        shared = ("token_classification", "multiple_choice")
        return next((head for head in shared if ARCHITECTURES[head] in architectures), "sequence_classification")
    return "encoder"


# Config fields that keep their name; vocab_size has another default where a published config leaves it out.
_SAME = tuple(
    field.name
    for field in dataclasses.fields(ModelConfig)
    if field.name not in ("num_labels", "id2label", "vocab_size")
)
_PUBLISHED_VOCAB_SIZE = 30522
_ACTIVATIONS = {"swish": "silu", "gelu_python": "gelu", "gelu_pytorch_tanh": "gelu_new"}


def config_from_published(values: Mapping[str, Any], where: str) -> ModelConfig:
    """Read the fields of a published ``config.json``.

    Args:
        values: The file's content.
        where: Name of the file, for messages.

    Raises:
        InputError: Another kind of model, or a field with an impossible value; the message names file and field.
    """
    if values.get("model_type") != MODEL_TYPE:
        raise InputError(f"{where}: model_type is {values.get('model_type')!r}; only {MODEL_TYPE!r} can be read")
    fields: dict[str, Any] = {name: values[name] for name in _SAME if values.get(name) is not None}
    fields["vocab_size"] = values.get("vocab_size", _PUBLISHED_VOCAB_SIZE)
    fields["hidden_act"] = _ACTIVATIONS.get(str(fields.get("hidden_act", "gelu")), fields.get("hidden_act", "gelu"))
    for name in ("layer_norm_eps", "initializer_range"):
        value = fields.get(name, 1.0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise InputError(f"{where}: {name} must be a positive number, not {value!r}")
    for name in ("real_vocab_size", "pad_token_id"):
        value = fields.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{where}: {name} must be a whole number, not {value!r}")
    fields.update(labels_from_published(values, where))
    try:
        config = ModelConfig(**fields)
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix('config: ')}") from None
    embedding_size = values.get("embedding_size", config.hidden_size)
    if embedding_size != config.hidden_size:
        raise InputError(f"{where}: embedding_size {embedding_size!r} differs from hidden_size; no such model is known")
    if config.pad_token_id >= config.vocab_size:
        raise InputError(f"{where}: pad_token_id {config.pad_token_id} must lie below vocab_size {config.vocab_size}")
    return config


def labels_from_published(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``num_labels`` and ``id2label``; names of the form LABEL_0 are transformers' filler and count as none.

    Raises:
        InputError: Names or number of the labels are none, or contradict each other; the message names file and field.
    """
    stored = values.get("id2label")
    count = values.get("num_labels")
    if stored is None:
        return {} if count is None else {"num_labels": count}
    try:
        id2label = {int(index): label for index, label in stored.items()}
    except (AttributeError, TypeError, ValueError):
        id2label = {}
    if not id2label or not all(isinstance(label, str) for label in id2label.values()):
        raise InputError(f'{where}: id2label must map each output to its name, as in {{"0": "no", "1": "yes"}}')
    if count is not None and count != len(id2label):
        raise InputError(f"{where}: num_labels is {count!r}, but id2label names {len(id2label)} outputs")
    filler = all(label == f"LABEL_{index}" for index, label in id2label.items())
    return {"num_labels": len(id2label), "id2label": {} if filler else dict(sorted(id2label.items()))}


def config_to_published(config: ModelConfig, head: str) -> dict[str, Any]:
    """Fields for a ``config.json`` that ``transformers`` reads; labels only where ``head`` has them.

    ``real_vocab_size`` and ``classifier_dropout`` are ours: ``transformers`` keeps them and does nothing with them.
    """
    values: dict[str, Any] = {"architectures": [ARCHITECTURES[head]], "model_type": MODEL_TYPE}
    values["vocab_size"] = config.vocab_size
    values.update({name: getattr(config, name) for name in _SAME if getattr(config, name) is not None})
    values["embedding_size"] = config.hidden_size
    values["tie_word_embeddings"] = True
    if head in ("sequence_classification", "token_classification"):
        values["id2label"] = {str(index): label for index, label in enumerate(config.labels)}
        values["label2id"] = {label: index for index, label in enumerate(config.labels)}
    return values
