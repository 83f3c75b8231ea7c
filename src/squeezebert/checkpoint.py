"""Folder <-> model: reads every published layout of SqueezeBERT checkpoints, writes the one ``transformers`` reads.

A checkpoint is a folder with ``config.json``, weights (``model.safetensors`` or ``pytorch_model.bin``, either in shards
with an index) and, mostly, a vocabulary. Published names appear in :mod:`squeezebert.model.hf` only.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from squeezebert import arrays, artifact
from squeezebert.errors import InputError
from squeezebert.files import write_json
from squeezebert.folder import (
    CONFIG,
    EXTRA,
    ORDER,
    TOKENIZER_FILES,
    VOCABULARIES,
    WEIGHT_FILES,
    WEIGHTS,
    Matched,
    check_values,
    check_weight_file,
    fit_vocabulary,
    is_size,
    match,
    read_config,
    read_extra,
    read_object,
    read_order,
    read_safetensors,
    read_tokenizer,
    resolve,
    size_config,
    summary,
    weight_files,
    writing,
)
from squeezebert.folder import find_head as _find_head
from squeezebert.folder import require_head as _require_head
from squeezebert.model import hf
from squeezebert.model.config import ModelConfig
from squeezebert.model.heads import HEADS
from squeezebert.tokenizer import Tokenizer

__all__ = [
    "CONFIG", "TOKENIZER_FILES", "VOCABULARIES", "WEIGHTS", "WEIGHT_FILES", "LoadReport", "Loaded", "convert",
    "find_head", "is_size", "load", "read_config", "read_object", "read_weights", "resolve", "save", "size_config",
]  # fmt: skip

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
            parts.append(f"not in the checkpoint and freshly initialised: {summary(self.missing)}")
        if self.reinitialised:
            parts.append(f"made for other labels and freshly initialised: {summary(self.reinitialised)}")
        if self.unexpected:
            parts.append(f"not used: {summary(self.unexpected)}")
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
    order: dict[str, Any] | None = None
    """Note of how a cut model's channels stand, which who compares hidden states must know."""


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
        source: Folder of a checkpoint or of a model exported for the native engine, hub id (``owner/name``), name of a
            model that ships with the package, or size name (random weights, see :func:`squeezebert.folder.is_size`).
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
    tokenizer = read_tokenizer(folder, vocab)
    config = fit_vocabulary(config, tokenizer, vocab or folder)
    published = read_weights(folder)
    model = HEADS[head](config)
    matched = _match(model, head, published, folder, resizable="num_labels" in config_changes)
    found = _find_head(published, folder)
    if require_head or (require_head is None and "num_labels" not in config_changes):
        _require_head(head, found, matched.missing, folder)
    model.load_state_dict(matched.state, strict=False)
    report = LoadReport(
        source=str(source),
        missing=matched.missing,
        unexpected=matched.unexpected,
        reinitialised=matched.reinitialised,
        dtype=_dtype(published),
        head=found,
    )
    return Loaded(model.eval(), config, tokenizer, report, read_extra(folder), read_order(folder))


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    extra: Mapping[str, Any] | None = None,
    order: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint that this package and ``transformers`` read.

    A folder that is new appears whole or not at all. In one that exists, other files stay; the checkpoint's are first
    written whole beside them and then renamed, the weights first.

    Args:
        model: One of :data:`squeezebert.model.heads.HEADS`, with its ``config``.
        folder: Where to write.
        tokenizer: Its vocabulary is written too.
        extra: JSON values kept in ``config.json`` for :attr:`Loaded.extra`.
        order: As :attr:`Loaded.order`; None: none is written.

    Raises:
        InputError: ``folder`` is a file.
        OSError: It cannot be written, or the disk is full.
    """
    head = next((name for name, cls in HEADS.items() if type(model) is cls), None)
    if head is None:
        raise TypeError(f"{type(model).__name__} is no class of HEADS; unwrap it first")
    config = model.config
    assert isinstance(config, ModelConfig)
    _write(Path(folder), config, head, hf.state_to_published(model.state_dict()), tokenizer, extra or {}, order)


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
    tokenizer = read_tokenizer(origin, None)
    config = fit_vocabulary(read_config(origin), tokenizer, origin)
    if labels is not None:
        config = config.replace(num_labels=len(labels), id2label=dict(enumerate(labels)))
    published = read_weights(origin)
    head = _find_head(published, origin)
    matched = _match(HEADS[head](config), head, published, origin)
    tensors = {name: tensor.to(DTYPES[dtype]) for name, tensor in hf.state_to_published(matched.state).items()}
    for name, tensor in tensors.items():
        if not _finite(tensor):
            raise InputError(f"{origin}: {name} has values beyond fp16's largest, 65504; use fp32")
    _write(Path(folder), config, head, tensors, tokenizer, read_extra(origin), read_order(origin))
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
    return _find_head(read_weights(folder), folder)


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors by their published names, as they are stored, sharded or not.

    Those of a model exported for the native engine are given the values that its integers stand for.

    Raises:
        InputError: No weights, a damaged file, or one that holds more than tensors.
    """
    if artifact.is_artifact(folder):
        return {name: torch.from_numpy(values) for name, values in arrays.read_exported(folder).items()}
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        tensors.update(_read_file(path))
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    """Read one file of tensors; whatever is wrong with it becomes one line."""
    check_weight_file(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path, "pt")
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


def _match(
    model: nn.Module, head: str, published: Mapping[str, Tensor], folder: Path, *, resizable: bool = False
) -> Matched:
    """Choose the tensors that ``model`` takes, and check them; ``resizable`` as :func:`squeezebert.folder.match`."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    matched = match(shapes, head, published, folder, resizable=resizable)
    for name, tensor in matched.state.items():
        where = f"{folder}: {matched.names[name]}"
        check_values(where, tensor.dtype, floating=tensor.is_floating_point(), finite=_finite(tensor))
    return matched


def _finite(tensor: Tensor) -> bool:
    """Whether every value is finite; the sum, one pass without a mask, settles all but overflowing sums."""
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def _build(size: str, head: str, vocab: str | Path | None, changes: dict[str, Any]) -> Loaded:
    config = size_config(size)
    tokenizer = None
    if vocab is not None:
        tokenizer = Tokenizer.load(vocab)
        rows = -(-tokenizer.vocab_size // 64) * 64
        config = config.replace(vocab_size=rows, real_vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id)
    config = _change(config, changes)
    if vocab is not None:
        config = fit_vocabulary(config, tokenizer, vocab)
    return Loaded(HEADS[head](config).eval(), config, tokenizer, LoadReport(size, random=True, head=head))


def _change(config: ModelConfig, changes: dict[str, Any]) -> ModelConfig:
    """Apply changes; names and kind of the old labels do not outlive a change of their number."""
    if changes.get("num_labels", config.num_labels) != config.num_labels:
        changes = {"id2label": {}, "problem_type": None, **changes}
    return config.replace(**changes)


def _write(
    folder: Path,
    config: ModelConfig,
    head: str,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer | None,
    extra: Mapping[str, Any],
    order: Mapping[str, Any] | None,
) -> None:
    values = hf.config_to_published(config, head)
    values["dtype"] = _dtype(tensors)
    if extra:
        values[EXTRA] = dict(extra)
    with writing(folder) as target:
        write_json(target / CONFIG, values)
        if tokenizer is not None:
            tokenizer.save(target)
        if order is not None:
            write_json(target / ORDER, order)
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, target / WEIGHTS[0], {"format": "pt"})


def _dtype(tensors: Mapping[str, Tensor]) -> str:
    """Number format of the tensors, as ``config.json`` names it."""
    formats = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    return "/".join(sorted(str(each).removeprefix("torch.") for each in formats))
