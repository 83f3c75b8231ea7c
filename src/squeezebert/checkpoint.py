"""Folder <-> model: reads every published layout of SqueezeBERT checkpoints, writes the one ``transformers`` reads.

A checkpoint is a folder with ``config.json``, weights (``model.safetensors`` or ``pytorch_model.bin``, either in shards
with an index) and, mostly, a vocabulary. Published names appear in :mod:`squeezebert.model.hf` only.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from squeezebert.errors import InputError, require
from squeezebert.files import atomic_folder, read_json, safetensors_errors, staged_files, write_json
from squeezebert.model import hf
from squeezebert.model.config import SIZES, ModelConfig
from squeezebert.model.heads import HEADS
from squeezebert.tokenizer import Tokenizer

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weight files, the first present being read; with ``.index.json`` appended, the index of their shards."""
VOCABULARIES = ("tokenizer.json", "vocab.txt")
_EXTRA = "squeezebert"  # the key of config.json under which other rooms keep what transformers has no field for
_MOST_PADDING = 128  # rows by which a word embedding is rounded up, at the most; a vocabulary lacking more is another's
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class LoadReport:
    """Where a model's weights came from, and which did not."""

    source: str
    """Folder, hub id or size name."""
    missing: tuple[str, ...] = ()
    """Published names of weights that the source lacks; they are freshly initialised."""
    unexpected: tuple[str, ...] = ()
    """Published names of tensors in the source that the model does not use."""
    reinitialised: tuple[str, ...] = ()
    """Published names of weights whose stored shape is that of another number of labels; freshly initialised too."""
    random: bool = False
    """The source is a size name: every weight is fresh."""
    dtype: str = "float32"
    """Number format in the file; the model itself is always float32."""
    head: str = "encoder"
    """Head found in the source, a key of :data:`squeezebert.model.heads.HEADS`."""

    def describe(self) -> str:
        """One line for a log."""
        if self.random:
            return f"{self.source}: a size name, so every weight is random"
        parts = [f"{self.source}: {self.dtype} weights, head {self.head}"]
        if self.missing:
            parts.append(f"not in the checkpoint and freshly initialised: {_summary(self.missing)}")
        if self.reinitialised:
            parts.append(f"made for other labels and freshly initialised: {_summary(self.reinitialised)}")
        if self.unexpected:
            parts.append(f"not used: {_summary(self.unexpected)}")
        return "; ".join(parts)


@dataclass
class Loaded:
    """A model with what belongs to it."""

    model: nn.Module
    """In evaluation mode, float32, on the CPU."""
    config: ModelConfig
    tokenizer: Tokenizer | None
    """None: the source has no vocabulary."""
    report: LoadReport
    extra: dict[str, Any] = field(default_factory=dict)
    """What :func:`save` was given as ``extra``."""


def load(
    source: str | Path,
    head: str = "sequence_classification",
    *,
    vocab: str | Path | None = None,
    require_head: bool | None = None,
    **config_changes: Any,
) -> Loaded:
    """Load a model with one of its heads.

    Args:
        source: Folder, hub id (``owner/name``) or size name (random weights).
        head: A key of :data:`squeezebert.model.heads.HEADS`.
        vocab: Vocabulary in place of the source's own: a file, folder or hub id. With a size name it also decides
            ``vocab_size``: its tokens, rounded up to a multiple of 64.
        require_head: Whether a source without the head's weights is an error (True), or gets fresh ones (False). None:
            an error, unless ``num_labels`` is among the changes, as when finetuning.
        config_changes: Fields of :class:`ModelConfig` that differ from the source's.

    Raises:
        InputError: The source cannot be read, is no SqueezeBERT, lacks weights, or has some of a wrong shape or with
            values that are not finite; or the vocabulary does not fit. The message names file and tensor.
    """
    if is_size(source):
        return _build(str(source), head, vocab, config_changes)
    folder = resolve(source)
    config = _change(read_config(folder), config_changes)
    tokenizer = _tokenizer(folder, vocab)
    config = _fit_vocabulary(config, tokenizer, vocab or folder)
    published = read_weights(folder)
    model = HEADS[head](config)
    matched = _match(model, head, published, folder, resizable="num_labels" in config_changes)
    found = hf.find_head(published, _architectures(folder))
    if require_head or (require_head is None and "num_labels" not in config_changes):
        _require_head(model, head, found, matched.missing, folder)
    model.load_state_dict(matched.state, strict=False)
    report = LoadReport(
        source=str(source),
        missing=matched.missing,
        unexpected=matched.unexpected,
        reinitialised=matched.reinitialised,
        dtype=_dtype(published),
        head=found,
    )
    return Loaded(model.eval(), config, tokenizer, report, _extra(folder))


def save(
    model: nn.Module, folder: str | Path, *, tokenizer: Tokenizer | None = None, extra: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint that this package and ``transformers`` read.

    A folder that is new appears whole or not at all. In one that exists, other files stay; the checkpoint's are first
    written whole beside them and then renamed, the weights first.

    Args:
        model: One of :data:`squeezebert.model.heads.HEADS`, with its ``config``.
        folder: Where to write.
        tokenizer: Its vocabulary is written too.
        extra: JSON values kept in ``config.json`` for :attr:`Loaded.extra`.

    Raises:
        InputError: ``folder`` is a file.
        OSError: It cannot be written, or the disk is full.
    """
    head = next((name for name, cls in HEADS.items() if type(model) is cls), None)
    if head is None:
        raise TypeError(f"{type(model).__name__} is no class of HEADS; unwrap it first")
    config = model.config
    assert isinstance(config, ModelConfig)
    _write(Path(folder), config, head, hf.state_to_published(model.state_dict()), tokenizer, extra or {})


def convert(
    source: str | Path,
    folder: str | Path,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
    labels: Sequence[str] | None = None,
) -> LoadReport:
    """Rewrite a checkpoint of any published layout as :func:`save` would, adding no weight that it lacks.

    Args:
        source: Folder or hub id.
        folder: Where to write.
        dtype: Number format to write.
        labels: Names of the classifier's outputs, to be stored; None: as they are.

    Raises:
        InputError: As :func:`load`; or a value is too large for fp16.
        OSError: ``folder`` cannot be written, or the disk is full.
    """
    if is_size(source):
        raise InputError(f"{source}: a size name stands for random weights; give a folder or a hub id to convert")
    origin = resolve(source)
    tokenizer = _tokenizer(origin, None)
    config = _fit_vocabulary(read_config(origin), tokenizer, origin)
    if labels is not None:
        config = config.replace(num_labels=len(labels), id2label=dict(enumerate(labels)))
    published = read_weights(origin)
    head = hf.find_head(published, _architectures(origin))
    matched = _match(HEADS[head](config), head, published, origin)
    tensors = {name: tensor.to(DTYPES[dtype]) for name, tensor in hf.state_to_published(matched.state).items()}
    for name, tensor in tensors.items():
        if not _finite(tensor):
            raise InputError(f"{origin}: {name} has values beyond fp16's largest, 65504; use fp32")
    _write(Path(folder), config, head, tensors, tokenizer, _extra(origin))
    return LoadReport(
        str(source), matched.missing, matched.unexpected, matched.reinitialised, dtype=_dtype(published), head=head
    )


def find_head(source: str | Path) -> str:
    """Which head ``source`` carries, a key of :data:`squeezebert.model.heads.HEADS`; a size name has "encoder".

    Raises:
        InputError: The source cannot be read.
    """
    if is_size(source):
        return "encoder"
    folder = resolve(source)
    return hf.find_head(read_weights(folder), _architectures(folder))


def is_size(source: str | Path) -> bool:
    """Whether ``source`` is a size name; a folder of that name comes first."""
    return str(source) in SIZES and not Path(source).exists()


def resolve(source: str | Path) -> Path:
    """Folder of a checkpoint: ``source`` itself, or the hub's copy, fetched where it is not in the cache.

    Raises:
        InputError: No such folder, and no hub id that can be reached.
        MissingExtraError: A hub id, but huggingface_hub is not installed.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{source}: is a file; give the folder that holds it")
    if isinstance(source, Path) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source):
        raise InputError(
            f"{source}: no such folder; give a folder, a hub id (owner/name) or a size name ({', '.join(SIZES)})"
        )
    hub = require("huggingface_hub", "hub")
    described = [CONFIG, *VOCABULARIES, "tokenizer_config.json"]
    try:
        for weights in ("model*.safetensors*", "pytorch_model*.bin*"):
            folder = Path(hub.snapshot_download(source, allow_patterns=[*described, weights]))
            if any(folder.glob(weights)):
                break
    except Exception as error:  # the hub's client lets errors of its HTTP library through, which share no base
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: no such folder, and not to be had from the hub: {reason}") from None
    return folder


def read_config(folder: str | Path) -> ModelConfig:
    """Read a checkpoint's ``config.json``.

    Raises:
        InputError: It is missing, not JSON, of another kind of model, or has a wrong value.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: no {CONFIG}; a checkpoint has one beside its weights")
    return hf.config_from_published(_read_object(path), str(path))


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors by their published names, as they are stored, sharded or not.

    Raises:
        InputError: No weights, a damaged file, or one that holds more than tensors.
    """
    folder = Path(folder)
    for name in WEIGHTS:
        if (folder / name).exists():
            return _read_file(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            return _read_shards(index)
    raise InputError(f"{folder}: no weights; a checkpoint has {' or '.join(WEIGHTS)}, whole or with an index of shards")


def _read_shards(index: Path) -> dict[str, Tensor]:
    shards = _read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise InputError(f"{index}: weight_map must map each tensor to the file that holds it")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or Path(shard).suffix not in (".safetensors", ".bin"):
            raise InputError(f"{index}: {shard!r} is not the name of a weight file beside it")
        tensors.update(_read_file(index.parent / shard))
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    """Read one file of tensors; whatever is wrong with it becomes one line."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, but the index beside it names it; fetch it too") from None
    if not start:
        raise InputError(f"{path}: empty file; fetch or copy it again")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a git-lfs pointer, not the weights; run git lfs pull")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except SafetensorError as error:
            raise InputError(
                f"{path}: truncated, or not a safetensors file ({error}); fetch or copy it again"
            ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on old pickle protocols and storage types
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises nearly anything on bytes that are not a pickle
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            raise InputError(f"{path}: holds Python objects that could run code, not only tensors; refused") from None
        raise InputError(f"{path}: truncated, or not a PyTorch file; fetch or copy it again") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise InputError(f"{path}: not a state dict, which maps names to tensors")
    return tensors


@dataclass(frozen=True)
class _Matched:
    """A published state beside the model that is to hold it."""

    state: dict[str, Tensor]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reinitialised: tuple[str, ...]


def _match(
    model: nn.Module, head: str, published: Mapping[str, Tensor], folder: Path, *, resizable: bool = False
) -> _Matched:
    """Choose the tensors that ``model`` takes, and check them.

    Args:
        resizable: Whether a classifier for another number of labels is left out rather than refused.
    """
    try:
        renamed = hf.state_to_ours(published, head)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    if head in ("masked_lm", "pretraining") and not hf.decoder_is_tied(published):
        raise InputError(f"{folder}: the decoder differs from the word embedding; only tied decoders can be read")
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    encoder_lacks = [
        hf.to_published(name)
        for name in shapes
        if name not in renamed.tensors
        and name.startswith("" if head == "encoder" else hf.PREFIX)
        and "pooler" not in name
    ]
    if encoder_lacks:
        raise InputError(
            f"{folder}: {_count(encoder_lacks, 'weight')} that {CONFIG} asks for missing ({_summary(encoder_lacks)}); "
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
        if not tensor.is_floating_point():
            raise InputError(f"{folder}: {stored} holds {tensor.dtype}, not floating-point numbers")
        if not _finite(tensor):
            raise InputError(f"{folder}: {stored} has values that are not finite; the training that wrote it diverged")
        state[name] = tensor
    unused = [renamed.names[name] for name in renamed.tensors if name not in shapes]
    return _Matched(
        state,
        tuple(hf.to_published(name) for name in shapes if name not in renamed.tensors),
        tuple(sorted([*unused, *renamed.unexpected])),
        tuple(reinitialised),
    )


def _require_head(model: nn.Module, head: str, found: str, missing: tuple[str, ...], folder: Path) -> None:
    """Refuse fresh weights between the encoder and ``head``'s scores."""
    if head == "encoder":
        return
    lacking = [name for name in missing if getattr(model, "uses_pooler", True) or "pooler" not in name]
    if lacking:
        raise InputError(
            f"{folder}: no {head} head (it has {found}; missing: {_summary(lacking)}); finetune it first, "
            "or choose a finetuned model"
        )


def _finite(tensor: Tensor) -> bool:
    """Whether every value is finite; the sum, one pass without a mask, settles all but overflowing sums."""
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def _build(size: str, head: str, vocab: str | Path | None, changes: dict[str, Any]) -> Loaded:
    config = SIZES[size]
    tokenizer = None
    if vocab is not None:
        tokenizer = Tokenizer.load(vocab)
        rows = -(-tokenizer.vocab_size // 64) * 64
        config = config.replace(vocab_size=rows, real_vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id)
    config = _change(config, changes)
    if vocab is not None:
        config = _fit_vocabulary(config, tokenizer, vocab)
    return Loaded(HEADS[head](config).eval(), config, tokenizer, LoadReport(size, random=True, head=head))


def _change(config: ModelConfig, changes: dict[str, Any]) -> ModelConfig:
    """Apply changes; names and kind of the old labels do not outlive a change of their number."""
    if changes.get("num_labels", config.num_labels) != config.num_labels:
        changes = {"id2label": {}, "problem_type": None, **changes}
    return config.replace(**changes)


def _tokenizer(folder: Path, vocab: str | Path | None) -> Tokenizer | None:
    if vocab is not None:
        return Tokenizer.load(vocab)
    return Tokenizer.load(folder) if any((folder / name).exists() for name in VOCABULARIES) else None


def _fit_vocabulary(config: ModelConfig, tokenizer: Tokenizer | None, where: str | Path) -> ModelConfig:
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


def _write(
    folder: Path,
    config: ModelConfig,
    head: str,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer | None,
    extra: Mapping[str, Any],
) -> None:
    values = hf.config_to_published(config, head)
    values["dtype"] = _dtype(tensors)
    if extra:
        values[_EXTRA] = dict(extra)

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder to write to")
    # In a folder that exists other files stay; a new one appears whole or not at all.
    with staged_files(folder, last=CONFIG) if folder.exists() else atomic_folder(folder) as target:
        write_json(target / CONFIG, values)
        if tokenizer is not None:
            tokenizer.save(target)
        weights = target / WEIGHTS[0]
        with safetensors_errors(folder / WEIGHTS[0]):
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, weights, {"format": "pt"})
        # safetensors writes for the owner alone; the other files follow the user's umask.
        weights.chmod((target / CONFIG).stat().st_mode)


def _read_object(path: Path) -> dict[str, Any]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold a JSON object")
    return values


def _architectures(folder: Path) -> list[str]:
    names = _read_object(folder / CONFIG).get("architectures")
    return names if isinstance(names, list) else []


def _extra(folder: Path) -> dict[str, Any]:
    extra = _read_object(folder / CONFIG).get(_EXTRA, {})
    if not isinstance(extra, dict):
        raise InputError(f"{folder / CONFIG}: {_EXTRA} must hold a JSON object")
    return extra


def _dtype(tensors: Mapping[str, Tensor]) -> str:
    """Number format of the tensors, as ``config.json`` names it."""
    formats = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    return "/".join(sorted(str(each).removeprefix("torch.") for each in formats))


def _count(things: Sequence[str], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _summary(names: Iterable[str], shown: int = 4) -> str:
    """Some names, and how many more."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
