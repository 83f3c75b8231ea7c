"""Folder -> a checkpoint as NumPy arrays, without torch wherever its weights are safetensors."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from squeezebert import artifact
from squeezebert import folder as folders
from squeezebert.errors import InputError, require
from squeezebert.model import hf
from squeezebert.model.config import ModelConfig
from squeezebert.model.shapes import parameter_shapes
from squeezebert.tokenizer import Tokenizer

# What NumPy has a type for; it lacks bfloat16, which torch must read.
_NUMPY_TYPES = ("F16", "F32", "F64")


@dataclass(frozen=True)
class Arrays:
    """A checkpoint."""

    state: dict[str, NDArray[Any]]
    """Our parameter names (:func:`squeezebert.model.shapes.parameter_shapes`) -> finite values. Only the pooler can be
    missing, where the head does not use it."""
    config: ModelConfig
    head: str
    """A key of :data:`squeezebert.model.heads.HEADS`."""
    tokenizer: Tokenizer | None
    """None: the folder has no vocabulary."""
    extra: dict[str, Any] = field(default_factory=dict)
    """As :attr:`squeezebert.checkpoint.Loaded.extra`."""
    folder: Path | None = None
    """Where it lies; None: nowhere, its weights are random."""


def load(source: str | Path, head: str | None = None) -> Arrays:
    """Load a checkpoint.

    Args:
        source: Folder or hub id of a checkpoint, or of a model exported for the native engine; or a size name, for
            random weights under a classifier.
        head: The head that is wanted; None: the one that it carries.

    Raises:
        InputError: The source cannot be read, lacks the head or other weights, or has some of a wrong shape or with
            values that are not finite; or the vocabulary does not fit.
        MissingExtraError: The weights are no safetensors (or bfloat16), and torch, which reads those, is not installed.
    """
    if folders.is_size(source):
        return _through_torch(source, head or "sequence_classification")
    folder = folders.resolve(source)
    config = folders.read_config(folder)
    files = folders.weight_files(folder)
    for file in files:
        folders.check_weight_file(file)
    exported = artifact.is_artifact(folder)  # by the native engine's; read_config refuses others
    if not exported and not all(_is_numpy(file) for file in files):
        return _through_torch(source, head, folder)
    tokenizer = folders.read_tokenizer(folder)
    config = folders.fit_vocabulary(config, tokenizer, folder)
    published: dict[str, NDArray[Any]] = read_exported(folder) if exported else {}
    for file in () if exported else files:
        published.update(folders.read_safetensors(file, "np"))
    found = folders.find_head(published, folder)
    carried = "masked_lm" if found == "pretraining" else found  # an export calls it so
    if exported and head is None and carried != artifact.read_manifest(folder).head:
        raise InputError(f"{folder}: its weights are a {found}'s, not those of the head that {folders.CONFIG} names")
    head = head or found
    matched = folders.match(parameter_shapes(config, head), head, published, folder)
    folders.require_head(head, found, matched.missing, folder)
    for name, values in matched.state.items():
        where = f"{folder}: {matched.names[name]}"
        folders.check_values(where, values.dtype, floating=values.dtype.kind == "f", finite=_finite(values))
    return Arrays(matched.state, config, head, tokenizer, folders.read_extra(folder), folder)


def read_exported(folder: str | Path) -> dict[str, NDArray[np.float32]]:
    """Read a model exported for the native engine: the values that its integers stand for, by their published names.

    Raises:
        InputError: No weights, a damaged file, or one with other tensors than an export writes.
    """
    from squeezebert.export import native

    path = Path(folder) / artifact.WEIGHTS
    if not path.is_file():
        raise InputError(f"{folder}: no {artifact.WEIGHTS}; an exported model has one beside its {folders.CONFIG}")
    _check_exported(path)
    stored = folders.read_safetensors(path, "np")
    for name, values in stored.items():
        if values.dtype != np.float32:
            continue
        if not _finite(values) or (_is_scale(name, stored) and (values < 0).any()):
            raise InputError(f"{path}: {name} has values that no export writes; export the checkpoint again")
    with np.errstate(over="ignore"):
        return hf.state_to_published(native.unpack(stored))


def _is_scale(name: str, names: Collection[str]) -> bool:
    module, _, kind = name.rpartition(".")
    return kind == "scale" and f"{module}.weight" in names


def _check_exported(path: Path) -> None:
    """Make sure that a file has what :func:`squeezebert.export.native.pack` writes: names, types, a scale a row."""
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            found = {name: (each.get_dtype(), list(each.get_shape())) for name, each in slices.items()}
    except SafetensorError as error:
        raise InputError(f"{path}: truncated, or not a safetensors file ({error}); fetch or copy it again") from None
    for name, (dtype, shape) in found.items():
        module, _, kind = name.rpartition(".")
        if _is_scale(name, found):
            right = dtype == "F32" and shape == found[f"{module}.weight"][1][:1]
        elif kind == "weight" and f"{module}.scale" in found:
            right = hf.is_ours(name) and dtype == "I8" and len(shape) == 2
        else:
            right = hf.is_ours(name) and dtype == "F32"
        if not right:
            what = f"{name}, {dtype} {shape}, is not as an export writes it"
            raise InputError(f"{path}: {what}; export the checkpoint again")


def copy(source: Path, folder: Path, tokenizer: Tokenizer) -> None:
    """Write a checkpoint anew, its weights in one file and as they are stored.

    Args:
        source: Folder of the checkpoint.
        folder: Where to write, as :func:`squeezebert.folder.writing`.
        tokenizer: The vocabulary to put beside the weights.

    Raises:
        InputError: ``source`` cannot be read, or ``folder`` is a file.
        OSError: ``folder`` cannot be written, or the disk is full.
    """
    files = folders.weight_files(source)
    if not all(_is_numpy(file) for file in files):
        from squeezebert import checkpoint

        checkpoint.convert(source, folder)
        return
    tensors: dict[str, NDArray[Any]] = {}
    for file in files:
        tensors.update(folders.read_safetensors(file, "np"))
    with folders.writing(folder) as target:
        for name in (folders.CONFIG, folders.ORDER):
            if (source / name).exists():
                shutil.copyfile(source / name, target / name)
        tokenizer.save(target)
        save_file(tensors, target / folders.WEIGHTS[0], {"format": "pt"})


def _is_numpy(path: Path) -> bool:
    """Whether NumPy has a type for every tensor of a file; a damaged one is left to its reader."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="np") as file:
            return all(file.get_slice(name).get_dtype() in _NUMPY_TYPES for name in file.keys())  # noqa: SIM118
    except Exception:
        return True


def _finite(values: NDArray[Any]) -> bool:
    """Whether every value is; the sum, one pass without a mask, settles all but overflowing sums."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum(dtype=np.float32))) or bool(np.isfinite(values).all())


def _through_torch(source: str | Path, head: str | None, folder: Path | None = None) -> Arrays:
    require("torch", "torch")
    from squeezebert import checkpoint

    head = head or checkpoint.find_head(source)
    loaded = checkpoint.load(source, head)
    # A pooler that the file lacks is no part of the checkpoint.
    state = {
        name: tensor.detach().numpy()
        for name, tensor in loaded.model.state_dict().items()
        if hf.to_published(name) not in loaded.report.missing
    }
    return Arrays(state, loaded.config, head, loaded.tokenizer, loaded.extra, folder)
