"""Checkpoint -> artifact of the native engine (native/): int8 matrices and embeddings, fp32 norms and biases.

The tensors, under our own parameter names (:mod:`squeezebert.model`), the encoder's without a prefix:

    <matrix>.weight int8 [out, in / groups],  <matrix>.scale float32 [out],  <matrix>.bias float32 [out]
    embeddings.{word,position}.weight int8 [rows, C],  .scale float32 [rows];  embeddings.token_type.weight float32
    <norm>.{weight,bias} float32 [C];  classifier.{weight,bias} float32;  mlm.bias float32 [V]

The matrices are those of the encoder's layers, ``pooler.dense`` (where the checkpoint has trained it) and
``mlm.transform``, the masked language model's. Its decoder is the word embedding.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from squeezebert import arrays, artifact
from squeezebert.arrays import Arrays
from squeezebert.errors import InputError
from squeezebert.export.quantize import quantize_rows
from squeezebert.export.stored import digests, file_bytes, vocabulary
from squeezebert.files import atomic_folder, safetensors_errors, write_json
from squeezebert.folder import ORDER, is_size, resolve
from squeezebert.model.config import ModelConfig
from squeezebert.model.shapes import uses_pooler

_PREFIX = "transformer."
_POSITIONS = "embeddings.position.weight"
_FP32_WEIGHTS = ("embeddings.token_type.weight", "classifier.weight")


@dataclass(frozen=True)
class Quantized:
    """A checkpoint as the native engine wants it."""

    manifest: artifact.Manifest
    config: dict[str, Any]
    """Content of ``config.json``."""
    tensors: dict[str, NDArray[Any]]
    """Content of ``model.safetensors``."""
    checkpoint: Arrays
    """Where they come from; its weights are forgotten, to save memory."""


def quantize(source: str | Path, head: str | None = None, max_length: int | None = None) -> Quantized:
    """Load a checkpoint and quantise it.

    Args:
        source: Folder or hub id of a checkpoint, or a size name (random weights, for timing).
        head: The head that is wanted, one of :data:`squeezebert.artifact.HEADS`; None: the one that it carries.
        max_length: Longest sequence that the artifact is to take, tokens; None: the model's.

    Raises:
        InputError: The checkpoint cannot be read, or has a head that the engine lacks; or ``max_length`` is out of
            range.
        MissingExtraError: Its weights are no safetensors, and torch, which reads others, is not installed.
    """
    loaded = arrays.load(source, head)
    head = "masked_lm" if loaded.head == "pretraining" else loaded.head
    if head not in artifact.HEADS:
        raise InputError(f"{source}: has the head {head}; only {', '.join(artifact.HEADS)} can be exported")
    config, length, pair = loaded.config, loaded.extra.get("max_length"), loaded.extra.get("pair")
    if max_length is not None:
        artifact.check_length(max_length, config.max_position_embeddings)
        config = config.replace(max_position_embeddings=max_length)
    manifest = artifact.Manifest(
        head=head,
        labels=config.labels if head.endswith("classification") else (),
        problem_type=config.problem_type,
        max_position_embeddings=config.max_position_embeddings,
        max_length=min(length, config.max_position_embeddings) if isinstance(length, int) else None,
        pair=pair if isinstance(pair, bool) else None,
        tolerance=artifact.TOLERANCES["int8"],
    )
    pooler = uses_pooler(loaded.head)
    state = {name: value for name, value in loaded.state.items() if pooler or "pooler" not in name}
    positions = next(name for name in state if name.endswith(_POSITIONS))
    state[positions] = state[positions][: config.max_position_embeddings]
    tensors = pack(state)
    return Quantized(manifest, config_values(config, manifest), tensors, replace(loaded, state={}))


def export(source: str | Path, folder: str | Path) -> None:
    """Write a checkpoint as an artifact; ``folder`` appears whole or not at all.

    Args:
        source: Folder or hub id of a checkpoint, or a size name (random weights, for timing).
        folder: Where to write; a former artifact is replaced.

    Raises:
        InputError: As :func:`quantize`; or ``folder`` holds something else.
        MissingExtraError: As :func:`quantize`.
        OSError: ``folder`` cannot be written, or the disk is full.
    """
    artifact.check_target(folder)
    with atomic_folder(folder) as target:
        write(source, target)


def write(source: str | Path, folder: Path, max_length: int | None = None) -> None:
    """Write a checkpoint's artifact into a folder that exists, for sequences up to a length; else as :func:`export`."""
    model = quantize(source, max_length=max_length)
    with safetensors_errors(folder / artifact.WEIGHTS):
        save_file(model.tensors, folder / artifact.WEIGHTS)
    if model.checkpoint.tokenizer is not None:
        model.checkpoint.tokenizer.save(folder)
    order = []
    if not is_size(source) and (resolve(source) / ORDER).exists():
        # Finetuning may go on from here, beside the teacher that it was cut from.
        shutil.copyfile(resolve(source) / ORDER, folder / ORDER)
        order = [ORDER]
    stored = {
        "files": {artifact.WEIGHTS: file_bytes(folder / artifact.WEIGHTS)},
        "sha256": digests(folder, [artifact.WEIGHTS, *order, *vocabulary(folder)]),
    }
    write_json(folder / artifact.CONFIG, model.config | stored)
    (folder / artifact.WEIGHTS).chmod((folder / artifact.CONFIG).stat().st_mode)


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


def unpack(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Undo :func:`pack`: the parameters that the artifact stands for, the encoder's without a prefix."""
    state: dict[str, NDArray[np.float32]] = {}
    for name, values in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind == "scale":
            continue
        state[name] = values.astype(np.float32)
        if kind == "weight" and f"{module}.scale" in tensors:
            state[name] *= tensors[f"{module}.scale"][:, None]
    return state
