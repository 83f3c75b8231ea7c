"""Checkpoint -> artifact of the native engine (native/): int8 matrices and embeddings, fp32 norms and biases.

The tensors, under our own parameter names (:mod:`squeezebert.model`), the encoder's without a prefix:

    <matrix>.weight int8 [out, in / groups],  <matrix>.scale float32 [out],  <matrix>.bias float32 [out]
    embeddings.{word,position}.weight int8 [rows, C],  .scale float32 [rows];  embeddings.token_type.weight float32
    <norm>.{weight,bias} float32 [C];  classifier.{weight,bias} float32
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from squeezebert import artifact
from squeezebert.errors import InputError, require
from squeezebert.export.quantize import quantize_rows
from squeezebert.files import atomic_folder, safetensors_errors, write_json

if TYPE_CHECKING:
    from squeezebert.model.config import ModelConfig

_PREFIX = "transformer."
_FP32_WEIGHTS = ("embeddings.token_type.weight", "classifier.weight")


def export(source: str | Path, folder: str | Path) -> None:
    """Write a checkpoint as an artifact; ``folder`` appears whole or not at all.

    Args:
        source: Folder or hub id of a checkpoint, or a size name (random weights, for timing).
        folder: Where to write; a former artifact is replaced.

    Raises:
        InputError: The checkpoint cannot be read, or has a head that cannot be exported; or ``folder`` holds something
            else.
        MissingExtraError: torch is not installed.
        OSError: ``folder`` cannot be written, or the disk is full.
    """
    require("torch", "torch")
    from squeezebert import checkpoint

    _check_target(Path(folder))
    head = "sequence_classification" if checkpoint.is_size(source) else checkpoint.find_head(source)
    if head in ("pretraining", "masked_lm"):
        head = "encoder"
    if head not in artifact.HEADS:
        raise InputError(f"{source}: has the head {head}; only {', '.join(artifact.HEADS)} can be exported")
    loaded = checkpoint.load(source, head)
    state = {name: tensor.detach().numpy() for name, tensor in loaded.model.state_dict().items()}
    config = loaded.config
    length = loaded.extra.get("max_length")
    pair = loaded.extra.get("pair")
    manifest = artifact.Manifest(
        head=head,
        labels=() if head == "encoder" else config.labels,
        problem_type=config.problem_type,
        max_position_embeddings=config.max_position_embeddings,
        max_length=min(length, config.max_position_embeddings) if isinstance(length, int) else None,
        pair=pair if isinstance(pair, bool) else None,
    )
    with atomic_folder(folder) as target:
        with safetensors_errors(Path(folder) / artifact.WEIGHTS):
            save_file(pack(state), target / artifact.WEIGHTS)
        if loaded.tokenizer is not None:
            loaded.tokenizer.save(target)
        write_json(target / artifact.CONFIG, config_values(config, manifest))
        (target / artifact.WEIGHTS).chmod((target / artifact.CONFIG).stat().st_mode)


def _check_target(folder: Path) -> None:
    """Refuse to replace what is no artifact: it could be the checkpoint itself, or a user's folder."""
    if folder.is_dir() and any(folder.iterdir()) and not artifact.is_artifact(folder):
        raise InputError(f"{folder}: holds other files, which would be lost; give a new folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder to write to")


def config_values(config: ModelConfig, manifest: artifact.Manifest) -> dict[str, Any]:
    """Content of ``config.json``."""
    values: dict[str, Any] = {"format": artifact.FORMAT, "format_version": artifact.VERSION}
    values.update({name: getattr(config, name) for name in artifact.SIZES})
    if config.real_vocab_size is not None:
        values["real_vocab_size"] = config.real_vocab_size
    values.update(hidden_act=config.hidden_act, layer_norm_eps=config.layer_norm_eps, pad_token_id=config.pad_token_id)
    values.update(manifest.to_dict())
    return values


def pack(state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Quantise a model's parameters.

    Args:
        state: Our parameter names -> values, the encoder's with or without ``transformer.``.

    Returns:
        The artifact's tensors.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for full_name, value in state.items():
        name = full_name.removeprefix(_PREFIX)
        if value.ndim == 2 and name not in _FP32_WEIGHTS:
            rows = quantize_rows(value)
            tensors[name] = rows.values
            tensors[f"{name.removesuffix('.weight')}.scale"] = rows.scale
        else:
            tensors[name] = np.ascontiguousarray(value, dtype=np.float32)
    return tensors
