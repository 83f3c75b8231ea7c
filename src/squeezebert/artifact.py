"""The folder of an exported model: its files, and what ``config.json`` says. Standard library only.

Every format has ``config.json``, the manifest below, and ``tokenizer.json`` and ``vocab.txt``, the vocabulary. The
native engine's also holds the model's sizes under the published names, and its weights are ``model.safetensors``. The
others keep the model in their runtime's own files, and ``golden.npz``, inputs with the outputs that PyTorch gives for
them (:mod:`squeezebert.export.verify`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from squeezebert.errors import InputError
from squeezebert.files import read_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
GOLDEN = "golden.npz"
FORMAT = "squeezebert-native"
PAGE_MODEL = "model"
"""Folder of the artifact inside a page that ``squeezebert export web`` wrote."""
VERSION = 1
"""Raised whenever a reader of the former version would misread the files."""

_FAMILY = "squeezebert-"  # what every artifact's "format" begins with

HEADS = ("encoder", "masked_lm", "sequence_classification", "token_classification")
"""Heads that the native engine has."""

OUTPUTS: dict[str, tuple[str, ...]] = {
    "encoder": ("last_hidden_state", "pooled"),
    "pretraining": ("logits", "sentence_order_logits"),
    "masked_lm": ("logits",),
    "sequence_classification": ("logits",),
    "token_classification": ("logits",),
    "question_answering": ("logits",),
    "multiple_choice": ("logits",),
}
"""Head -> names of an exported graph's outputs, in order, shaped as in :mod:`squeezebert.model.heads`. Of a multiple
choice every choice is a row of its own, with logits ``[B, 1]``."""

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.1}
"""Precision -> largest allowed difference from PyTorch, as a share of the largest output. In fp32 only the order of
sums differs: some hundred rounding errors of 6e-8 in each of some tens of steps. fp16 has 5e-4 a rounding. In int8 each
step is off by up to 1/254 of its largest value, and the errors of twelve layers add up like a random walk's."""

SMALLER = {"int8": 3.5, "fp16": 1.9}
"""Precision -> how many times smaller than fp32 an artifact is meant to be: a little less than the ratio of the bits,
for norms and biases stay in fp32, and the graph takes its place. Where it is less, verification says so."""

_SHORTEST = 5
"""Tokens that an artifact takes at the least: three special ones frame a pair, and something of it must be left."""

SIZES = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings "
    "type_vocab_size q_groups k_groups v_groups post_attention_groups intermediate_groups output_groups num_labels"
).split()
"""Fields of ``config.json`` that the native engine builds the model from."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is known of an exported model besides its weights."""

    format: str = "native"
    """Name of the format, as in ``squeezebert export FORMAT``."""
    precision: str = "int8"
    """Number format of the weights: "fp32", "fp16" or "int8"."""
    form: str | None = None
    """Form of the grouped layers (:mod:`squeezebert.model.grouped`); None: the engine's own."""
    head: str
    """One of :data:`OUTPUTS`."""
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
    lengths: tuple[int, ...] = ()
    """Sequence lengths that the files are made for, tokens, ascending; empty: any."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Files that hold the model -> bytes."""
    companions: Mapping[str, int] = field(default_factory=dict)
    """Files that hold the same model for other programs -> bytes."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """File, or companion -> hash of its content, as :func:`squeezebert.export.stored.digest` gives it."""
    tolerance: float | None = None
    """Largest difference from PyTorch that is allowed, as a share of the largest output; None: none is stated."""
    report: Mapping[str, Any] | None = None
    """What verification found (:class:`squeezebert.export.verify.Report`); None: it was not run."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version that the artifact was made with."""

    def to_dict(self) -> dict[str, Any]:
        """Fields for ``config.json``."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**values, "format": _FAMILY + self.format, "format_version": VERSION}


def is_artifact(folder: str | Path) -> bool:
    """Whether ``folder`` is an exported model rather than a checkpoint."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        return False
    values = read_json(path)
    return isinstance(values, Mapping) and str(values.get("format", "")).startswith(_FAMILY)


def locate(source: str | Path) -> str | Path:
    """Folder of the model that ``source`` holds: of a page (``squeezebert export web``) the one inside it.

    Any other source is given back as it is.
    """
    inner = Path(source) / PAGE_MODEL
    return inner if not (Path(source) / CONFIG).exists() and is_artifact(inner) else source


def check_length(length: int, longest: int) -> None:
    """Make sure that texts can be cut to a number of tokens.

    Args:
        length: Tokens.
        longest: What the model takes, tokens.

    Raises:
        InputError: ``length`` is out of range.
    """
    if not _SHORTEST <= length <= longest:
        raise InputError(f"max length must lie between {_SHORTEST} and the model's {longest}, not {length}")


def check_target(folder: str | Path) -> None:
    """Refuse to replace what is no artifact: it could be the checkpoint itself, or a user's folder.

    Raises:
        InputError: ``folder`` is a file, or holds something else.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not is_artifact(folder):
        raise InputError(f"{folder}: holds other files, which would be lost; give a new folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder to write to")


def read_manifest(folder: str | Path) -> Manifest:
    """Read what ``config.json`` says.

    Raises:
        InputError: It is missing or no exported model's, or a field has a wrong value.
    """
    path = Path(folder) / CONFIG
    values = read_json(path)
    kind = values.get("format") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or not kind.startswith(_FAMILY):
        raise InputError(f"{path}: not an exported model; make one with squeezebert export")
    if values.get("format_version") != VERSION:
        raise InputError(
            f"{path}: format version {values.get('format_version')!r}, but this program reads {VERSION}; "
            "export the checkpoint again"
        )
    head, labels = values.get("head"), values.get("labels")
    heads = HEADS if kind == FORMAT else tuple(OUTPUTS)
    if head not in heads:
        raise InputError(f"{path}: head is {head!r}, not one of {', '.join(heads)}")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{path}: labels must be a list of names")
    if kind == FORMAT and head.endswith("classification") and len(labels) != values.get("num_labels"):
        raise InputError(f"{path}: num_labels is {values.get('num_labels')!r}, but labels names {len(labels)}")
    positions, length = values.get("max_position_embeddings"), values.get("max_length")
    if not isinstance(positions, int) or positions < 1:
        raise InputError(f"{path}: max_position_embeddings must be a positive whole number, not {positions!r}")
    if length is not None and not (isinstance(length, int) and 1 <= length <= positions):
        raise InputError(f"{path}: max_length must be a whole number from 1 to {positions}, not {length!r}")
    lengths = values.get("lengths", [])
    if not isinstance(lengths, list) or not all(isinstance(each, int) and 1 <= each <= positions for each in lengths):
        raise InputError(f"{path}: lengths must be whole numbers from 1 to {positions}")
    tolerance = values.get("tolerance")
    if tolerance is not None and not (isinstance(tolerance, (int, float)) and tolerance > 0):
        raise InputError(f"{path}: tolerance must be a positive number, not {tolerance!r}")
    for name in ("files", "companions", "sha256", "versions", "report"):
        if not isinstance(values.get(name) or {}, Mapping):
            raise InputError(f"{path}: {name} must be an object")
    pair = values.get("pair")
    return Manifest(
        format=kind.removeprefix(_FAMILY),
        precision=str(values.get("precision", "int8")),
        form=values.get("form"),
        head=head,
        labels=tuple(labels),
        problem_type=values.get("problem_type"),
        max_position_embeddings=positions,
        max_length=length,
        pair=pair if isinstance(pair, bool) else None,
        lengths=tuple(sorted(lengths)),
        files=values.get("files") or {},
        companions=values.get("companions") or {},
        sha256=values.get("sha256") or {},
        tolerance=tolerance,
        report=values.get("report"),
        versions=values.get("versions") or {},
    )
