"""The folder of an exported model: its files, and what ``config.json`` says. Standard library only.

``config.json`` holds the model's sizes under the published names, its head, its labels, and how it was finetuned;
``model.safetensors`` the weights; ``tokenizer.json`` and ``vocab.txt`` the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from squeezebert.errors import InputError
from squeezebert.files import read_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT = "squeezebert-native"
VERSION = 1
"""Raised whenever a reader of the former version would misread the files."""

HEADS = ("encoder", "masked_lm", "sequence_classification", "token_classification")
"""Heads that can be exported."""

SIZES = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings "
    "type_vocab_size q_groups k_groups v_groups post_attention_groups intermediate_groups output_groups num_labels"
).split()
"""Fields of ``config.json`` that the engine builds the model from."""


@dataclass(frozen=True)
class Manifest:
    """What is known of an exported model besides its weights."""

    head: str
    """One of :data:`HEADS`."""
    labels: tuple[str, ...]
    """Names of the outputs; empty without a classifier."""
    problem_type: str | None
    """What a classifier predicts, as in :class:`squeezebert.model.config.ModelConfig`."""
    max_position_embeddings: int
    """Longest sequence, tokens."""
    max_length: int | None
    """Longest sequence of finetuning, tokens, where known."""
    pair: bool | None
    """Whether an example is two texts; None: not known."""

    def to_dict(self) -> dict[str, Any]:
        """Fields for ``config.json``."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def is_artifact(folder: str | Path) -> bool:
    """Whether ``folder`` is an exported model rather than a checkpoint."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        return False
    values = read_json(path)
    return isinstance(values, Mapping) and values.get("format") == FORMAT


def read_manifest(folder: str | Path) -> Manifest:
    """Read what ``config.json`` says.

    Raises:
        InputError: It is missing or no exported model's, or a field has a wrong value.
    """
    path = Path(folder) / CONFIG
    values = read_json(path)
    if not isinstance(values, Mapping) or values.get("format") != FORMAT:
        raise InputError(f"{path}: not an exported model; make one with squeezebert export native")
    if values.get("format_version") != VERSION:
        raise InputError(
            f"{path}: format version {values.get('format_version')!r}, but this program reads {VERSION}; "
            "export the checkpoint again"
        )
    head, labels = values.get("head"), values.get("labels")
    if head not in HEADS:
        raise InputError(f"{path}: head is {head!r}, not one of {', '.join(HEADS)}")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{path}: labels must be a list of names")
    positions, length = values.get("max_position_embeddings"), values.get("max_length")
    if not isinstance(positions, int) or positions < 1:
        raise InputError(f"{path}: max_position_embeddings must be a positive whole number, not {positions!r}")
    if length is not None and not (isinstance(length, int) and 1 <= length <= positions):
        raise InputError(f"{path}: max_length must be a whole number from 1 to {positions}, not {length!r}")
    pair = values.get("pair")
    return Manifest(
        head=head,
        labels=tuple(labels),
        problem_type=values.get("problem_type"),
        max_position_embeddings=positions,
        max_length=length,
        pair=pair if isinstance(pair, bool) else None,
    )
