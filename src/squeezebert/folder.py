"""A checkpoint's folder, read without torch: where it is, its config, vocabulary, head, and tensors by name.

:mod:`squeezebert.checkpoint` makes a torch model of it, :mod:`squeezebert.arrays` NumPy arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from squeezebert import artifact
from squeezebert.errors import InputError, require
from squeezebert.files import atomic_folder, read_json, safetensors_errors, staged_files
from squeezebert.model import hf
from squeezebert.model.config import SIZES, ModelConfig
from squeezebert.model.shapes import uses_pooler
from squeezebert.runtime import models
from squeezebert.tokenizer import Tokenizer

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weight files, the first present being read; with ``.index.json`` appended, the index of their shards."""
WEIGHT_FILES = ("model*.safetensors*", "pytorch_model*.bin*")
"""Patterns of all these, shards included."""
VOCABULARIES = ("tokenizer.json", "vocab.txt")
TOKENIZER_FILES = (
    "tokenizer*", "vocab*", "merges.txt", "*.model", "bpe.codes", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
"""Patterns of whatever a tokenizer is stored in, those of other kinds of models (which may be teachers) included."""
ORDER = "order.json"
"""In which a dense model's channels were put when it was cut into groups (:mod:`squeezebert.training.grouping`)."""
EXTRA = "squeezebert"
"""Key of config.json under which other rooms keep what transformers has no field for."""
_MOST_PADDING = 128  # rows by which a word embedding is rounded up, at the most; a vocabulary lacking more is another's


RANDOM = "random:"
"""Before a size name: random weights, also where a model of that name ships with the package."""


def is_size(source: str | Path) -> bool:
    """Whether ``source`` stands for random weights: ``random:small``, or the name of a size that no model has.

    A folder of that name comes first, then a model that ships with the package.
    """
    name = str(source)
    if name.startswith(RANDOM):
        return name.removeprefix(RANDOM) in SIZES
    return name in SIZES and models.find(name) == name and not Path(name).exists()


def size_config(source: str | Path) -> ModelConfig:
    """Sizes that a ``source`` of which :func:`is_size` holds stands for."""
    return SIZES[str(source).removeprefix(RANDOM)]


def refuse_size(source: str | Path) -> None:
    """Refuse to predict with random weights.

    Raises:
        InputError: ``source`` is a size name.
    """
    if is_size(source):
        raise InputError(f"{source}: a size name stands for random weights, which predict nothing; finetune it first")


def resolve(source: str | Path) -> Path:
    """Folder of a checkpoint: ``source`` itself, that of a model of that name in the package, or the hub's copy.

    The hub's is fetched where it is not in the cache.

    Raises:
        InputError: No such folder, and no hub id that can be reached.
        MissingExtraError: A hub id, but huggingface_hub is not installed.
    """
    path = Path(models.find(source)).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{source}: is a file; give the folder that holds it")
    if isinstance(source, Path) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source):
        raise InputError(
            f"{source}: no such folder; give a folder, a hub id (owner/name) or a size name ({', '.join(SIZES)})"
        )
    hub = require("huggingface_hub", "hub")
    described = [CONFIG, ORDER, *TOKENIZER_FILES]
    try:
        for weights in WEIGHT_FILES:
            folder = Path(hub.snapshot_download(source, allow_patterns=[*described, weights]))
            if any(folder.glob(weights)):
                break
    except Exception as error:  # the hub's client lets errors of its HTTP library through, which share no base
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: no such folder, and not to be had from the hub: {reason}") from None
    return folder


def read_config(folder: str | Path) -> ModelConfig:
    """Read the ``config.json`` of a checkpoint, or of a model exported for the native engine.

    Raises:
        InputError: It is missing, not JSON, of another kind of model, or has a wrong value.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: no {CONFIG}; a checkpoint has one beside its weights")
    values = read_object(path)
    if artifact.is_artifact(folder):
        manifest = artifact.read_manifest(folder)
        if manifest.format != "native":
            raise InputError(f"{folder}: exported as {manifest.format}; give the checkpoint that it was made from")
        names = {str(index): label for index, label in enumerate(manifest.labels)}
        values = {**values, "model_type": hf.MODEL_TYPE, "id2label": names or None}
    return hf.config_from_published(values, str(path))


def read_tokenizer(folder: Path, vocab: str | Path | None = None) -> Tokenizer | None:
    """The vocabulary ``vocab``, or else the one in the folder; None: there is none."""
    return Tokenizer.find(folder) if vocab is None else Tokenizer.load(vocab)


def fit_vocabulary(config: ModelConfig, tokenizer: Tokenizer | None, where: str | Path) -> ModelConfig:
    """Record how many rows of the word embedding are real tokens.

    Raises:
        InputError: The vocabulary cannot be the model's.
    """
    if tokenizer is None:
        return config
    tokens = tokenizer.vocab_size
    padding = config.vocab_size - tokens
    if not 0 <= padding < _MOST_PADDING or config.real_vocab_size not in (None, tokens):
        rows = config.vocab_size if config.real_vocab_size is None else config.real_vocab_size
        raise InputError(f"{where}: wrong vocabulary: {tokens} tokens, but the model was made for {rows}")
    return config.replace(real_vocab_size=tokens)


def read_extra(folder: Path) -> dict[str, Any]:
    """What :func:`squeezebert.checkpoint.save` was given as ``extra``; of an artifact, what its manifest has of it.

    Raises:
        InputError: It is no JSON object.
    """
    values = read_object(folder / CONFIG)
    if artifact.is_artifact(folder):
        return {name: values[name] for name in ("max_length", "pair") if values.get(name) is not None}
    extra = values.get(EXTRA, {})
    if not isinstance(extra, dict):
        raise InputError(f"{folder / CONFIG}: {EXTRA} must hold a JSON object")
    return extra


def read_order(folder: Path) -> dict[str, Any] | None:
    """The note of how a cut model's channels stand, as it is stored; None: there is none.

    Raises:
        InputError: It is no JSON object.
    """
    return read_object(folder / ORDER) if (folder / ORDER).exists() else None


def find_head(tensors: Iterable[str], folder: str | Path) -> str:
    """Which head a checkpoint carries, by the names of its tensors and its config."""
    return hf.find_head(tensors, _architectures(Path(folder)))


def _architectures(folder: Path) -> list[str]:
    if artifact.is_artifact(folder):
        return [hf.ARCHITECTURES[artifact.read_manifest(folder).head]]
    names = read_object(folder / CONFIG).get("architectures")
    return names if isinstance(names, list) else []


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return values


def weight_files(folder: str | Path) -> list[Path]:
    """Files that hold a checkpoint's tensors: one, or the shards that an index names.

    Raises:
        InputError: There are none, or the index is no index.
    """
    folder = Path(folder)
    for name in WEIGHTS:
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            return _shards(index)
    raise InputError(f"{folder}: no weights; a checkpoint has {' or '.join(WEIGHTS)}, whole or with an index of shards")


def _shards(index: Path) -> list[Path]:
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise InputError(f"{index}: weight_map must map each tensor to the file that holds it")
    for shard in shards.values():
        if Path(shard).name != shard or Path(shard).suffix not in (".safetensors", ".bin"):
            raise InputError(f"{index}: {shard!r} is not the name of a weight file beside it")
    return [index.parent / shard for shard in sorted(set(shards.values()))]


def check_weight_file(path: Path) -> None:
    """Tell the usual accidents by a file's first bytes.

    Raises:
        InputError: It is missing, empty, or stands for the weights only.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, but the index beside it names it; fetch it too") from None
    if not start:
        raise InputError(f"{path}: empty file; fetch or copy it again")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a git-lfs pointer, not the weights; run git lfs pull")


def read_safetensors(path: Path, framework: str) -> dict[str, Any]:
    """Read every tensor of a file.

    Args:
        path: The file.
        framework: "pt" for torch tensors, "np" for NumPy arrays.

    Raises:
        InputError: It is damaged.
    """
    try:
        with safe_open(path, framework=framework) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise InputError(f"{path}: truncated, or not a safetensors file ({error}); fetch or copy it again") from None


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Give a temporary folder for a model's files; on success they are renamed into ``folder``.

    A folder that is new appears whole or not at all. In one that exists, other files stay, and the weights come before
    the config.

    Raises:
        InputError: ``folder`` is a file.
        OSError: It cannot be written, or the disk is full.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder to write to")
    with staged_files(folder, last=CONFIG) if folder.exists() else atomic_folder(folder) as target:
        with safetensors_errors(folder / WEIGHTS[0]):
            yield target
        # safetensors writes for the owner alone; the other files follow the user's umask.
        (target / WEIGHTS[0]).chmod((target / CONFIG).stat().st_mode)


@dataclass(frozen=True)
class Matched:
    """A published state beside the parameters that it is to fill."""

    state: dict[str, Any]
    """Our name -> tensor (of torch or NumPy, as they were given), of the right shape."""
    names: dict[str, str]
    """Our name -> the name in the file."""
    missing: tuple[str, ...]
    """Published names of parameters that there is no tensor for."""
    unexpected: tuple[str, ...]
    """Names in the file that are none of the parameters."""
    reinitialised: tuple[str, ...]
    """Names in the file of a classifier for another number of labels, left out."""


def match(
    shapes: Mapping[str, tuple[int, ...]],
    head: str,
    published: Mapping[str, Any],
    folder: Path,
    *,
    resizable: bool = False,
) -> Matched:
    """Choose the tensors that a model takes, and check their shapes.

    Args:
        shapes: The model's parameters: our name -> shape.
        head: Its head, a key of :data:`squeezebert.model.heads.HEADS`.
        published: The checkpoint's tensors by published name.
        folder: Where they come from, for messages.
        resizable: Whether a classifier for another number of labels is left out rather than refused.

    Raises:
        InputError: The encoder is incomplete, or a tensor has a wrong shape; the message names it.
    """
    try:
        renamed = hf.state_to_ours(published, head)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    if head in ("masked_lm", "pretraining") and not hf.decoder_is_tied(published):
        raise InputError(f"{folder}: the decoder differs from the word embedding; only tied decoders can be read")
    encoder_lacks = [
        hf.to_published(name)
        for name in shapes
        if name not in renamed.tensors
        and name.startswith("" if head == "encoder" else hf.PREFIX)
        and "pooler" not in name
    ]
    if encoder_lacks:
        raise InputError(
            f"{folder}: {_count(encoder_lacks, 'weight')} that {CONFIG} asks for missing ({summary(encoder_lacks)}); "
            "the files are incomplete, or the config is another model's"
        )
    state, reinitialised = {}, []
    for name, tensor in renamed.tensors.items():
        if name not in shapes:
            continue
        stored = renamed.names[name]
        if tuple(tensor.shape) != shapes[name]:
            if resizable and name.startswith("classifier."):
                reinitialised.append(stored)
                continue
            wanted = hf.published_shape(name, shapes[name])
            raise InputError(
                f"{folder}: {stored} is {list(published[stored].shape)}, but {CONFIG} asks for {list(wanted)}"
            )
        state[name] = tensor
    unused = [renamed.names[name] for name in renamed.tensors if name not in shapes]
    return Matched(
        state,
        {name: renamed.names[name] for name in state},
        tuple(hf.to_published(name) for name in shapes if name not in renamed.tensors),
        tuple(sorted([*unused, *renamed.unexpected])),
        tuple(reinitialised),
    )


def require_head(head: str, found: str, missing: Iterable[str], folder: Path) -> None:
    """Refuse fresh weights between the encoder and a head's scores.

    Args:
        head: The head that is wanted.
        found: The head that the checkpoint carries.
        missing: Published names of the parameters that it lacks.
        folder: Where it lies, for messages.

    Raises:
        InputError: Some of the head's parameters are missing.
    """
    if head == "encoder":
        return
    lacking = [name for name in missing if uses_pooler(head) or "pooler" not in name]
    if lacking:
        raise InputError(
            f"{folder}: no {head} head (it has {found}; missing: {summary(lacking)}); finetune it first, "
            "or choose a finetuned model"
        )


def check_values(where: str, dtype: object, *, floating: bool, finite: bool) -> None:
    """Refuse a tensor that holds no weights.

    Args:
        where: Folder and published name, for messages.
        dtype: Its number format.
        floating: Whether that is floating-point.
        finite: Whether every value is finite.

    Raises:
        InputError: It is not floating-point, or not finite.
    """
    if not floating:
        raise InputError(f"{where} holds {dtype}, not floating-point numbers")
    if not finite:
        raise InputError(f"{where} has values that are not finite; the training that wrote it diverged")


def _count(things: Sequence[str], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def summary(names: Iterable[str], shown: int = 4) -> str:
    """Some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
