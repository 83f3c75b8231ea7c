"""A teacher: any sequence classifier, with its own tokenizer, that gives its opinion of texts.

Checkpoints of this package run on its own model, which leaves padding out; all others are loaded by ``transformers``.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from squeezebert import artifact, checkpoint
from squeezebert.data.collate import Batch, collate
from squeezebert.data.examples import Example
from squeezebert.errors import InputError, require
from squeezebert.folder import ORDER
from squeezebert.model import hf
from squeezebert.training.losses import forward

_DECISIVE = (checkpoint.CONFIG, ORDER, *checkpoint.WEIGHT_FILES, *checkpoint.TOKENIZER_FILES)
"""Files of a checkpoint that decide what it says of a text, and which of its channels is which."""
_CHUNK = 1 << 20


class Reader(Protocol):
    """A teacher, loaded."""

    def lengths(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        """Tokens of each example, in the teacher's own vocabulary. *Shape:* ``[n]``."""
        ...

    def logits(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Outputs for some examples, computed in one batch. *Shape:* ``[B, K]``."""
        ...


@dataclass(frozen=True)
class Teacher:
    """What is known of a teacher before its weights are loaded."""

    source: str
    """Folder or hub id, as given."""
    folder: Path
    """Where its files are."""
    labels: tuple[str, ...]
    """Name of each output."""
    problem_type: str | None
    """What its outputs stand for; None: its configuration does not say."""
    model_type: str
    """Kind of network, as ``config.json`` names it."""
    fingerprint: str
    """Hash of weights, configuration and tokenizer."""

    @classmethod
    def open(cls, source: str) -> Teacher:
        """Look into a checkpoint.

        Args:
            source: Folder or hub id.

        Raises:
            InputError: There is none, or its configuration is missing or says nothing sound of its labels.
        """
        if checkpoint.is_size(source):
            raise InputError(f"{source}: a size name stands for random weights, which teach nothing; give a checkpoint")
        folder = checkpoint.resolve(source)
        path = folder / checkpoint.CONFIG
        if not path.is_file():
            raise InputError(f"{source}: no config.json; a teacher is a folder or hub id of a finetuned classifier")
        config = checkpoint.read_object(path)
        if artifact.is_artifact(folder) or config.get("model_type") == hf.MODEL_TYPE:
            ours = checkpoint.read_config(folder)
            labels, problem_type, model_type = ours.labels, ours.problem_type, hf.MODEL_TYPE
        else:
            labels, problem_type = _read_labels(config, path), config.get("problem_type")
            model_type = str(config.get("model_type"))
        return cls(
            source=source,
            folder=folder,
            labels=labels,
            problem_type=problem_type,
            model_type=model_type,
            fingerprint=hash_files(folder),
        )

    def load(self, device: torch.device, max_length: int) -> Reader:
        """Load the weights.

        Args:
            device: Where to compute.
            max_length: Tokens kept of a text or pair; no more than the teacher takes are kept in any case.

        Raises:
            InputError: Weights or tokenizer are missing or damaged, or there is no trained classifier.
        """
        kind = _OwnReader if self.model_type == hf.MODEL_TYPE else _TransformersReader
        return kind(self, device, max_length)


def _read_labels(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Name of each output, in the configuration of ``transformers``."""
    told = hf.labels_from_published(config, str(path))
    count = told.get("num_labels", 2)  # as in transformers
    if not isinstance(count, int):
        raise InputError(f"{path}: num_labels must be a whole number, not {count!r}")
    return tuple((told.get("id2label") or {index: f"LABEL_{index}" for index in range(count)}).values())


class _OwnReader:
    """A checkpoint of this package."""

    def __init__(self, teacher: Teacher, device: torch.device, max_length: int) -> None:
        loaded = checkpoint.load(teacher.folder)
        if loaded.tokenizer is None:
            raise InputError(f"{teacher.source}: no tokenizer.json or vocab.txt beside the weights; put its own there")
        self._model = loaded.model.to(device)
        self._tokenizer = loaded.tokenizer
        self._device = device
        self._max_length = min(max_length, loaded.config.max_position_embeddings)

    def lengths(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        return np.array([len(encoding.input_ids) for encoding in self._encode(examples)])

    @torch.inference_mode()
    def logits(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        batch: Batch = collate(
            self._encode(examples), indices=range(len(examples)), pad_id=self._tokenizer.pad_id, unpad=True
        )
        array: NDArray[np.float32] = forward(self._model, batch, self._device).logits.float().cpu().numpy()
        return array

    def _encode(self, examples: Sequence[Example]) -> Any:
        return self._tokenizer.encode_batch(*_texts(examples), max_length=self._max_length)


class _TransformersReader:
    """A checkpoint of any other kind."""

    def __init__(self, teacher: Teacher, device: torch.device, max_length: int) -> None:
        transformers: Any = require("transformers", "train")
        folder = str(teacher.folder)
        with _quiet(transformers.utils.logging):
            try:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
                model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                    folder, output_loading_info=True, dtype=torch.float32
                )
            except Exception as error:  # whatever transformers and the readers below it raise on damaged files
                reason = " ".join(str(error).split())[:200]
                raise InputError(f"{teacher.source}: transformers cannot load it as a classifier ({reason})") from None
        if report["missing_keys"]:
            lacking = ", ".join(sorted(report["missing_keys"])[:4])
            raise InputError(f"{teacher.source}: no trained classifier (missing: {lacking}); finetune it on the task")
        if self._tokenizer.pad_token is None:
            raise InputError(f"{teacher.source}: its tokenizer has no padding token; name one in tokenizer_config.json")
        # Decoders find the end of a text by it, and many of their checkpoints do not name it.
        model.config.pad_token_id = self._tokenizer.pad_token_id
        self._model = model.eval().to(device)
        self._device = device
        self._max_length = min(max_length, _most_tokens(model), self._tokenizer.model_max_length)

    def lengths(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        return np.array([len(ids) for ids in self._encode(examples, padding=False)["input_ids"]])

    @torch.inference_mode()
    def logits(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        encoded = self._encode(examples, padding=True, return_tensors="pt").to(self._device)
        array: NDArray[np.float32] = self._model(**encoded).logits.float().cpu().numpy()
        return array

    def _encode(self, examples: Sequence[Example], **options: Any) -> Any:
        return self._tokenizer(*_texts(examples), truncation=True, max_length=self._max_length, **options)


def _most_tokens(model: Any) -> int:
    """Tokens that a model of ``transformers`` takes at a time; a very large number where any will do."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its kind number their positions from behind the padding token's.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    # XLNet, whose positions are relative, says -1.
    named = getattr(model.config, "max_position_embeddings", -1)
    return named if named > 0 else sys.maxsize


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Keep transformers from drawing bars and printing tables; what matters of them is reported here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _texts(examples: Sequence[Example]) -> tuple[list[str], list[str | None] | None]:
    pairs = None if examples[0].pair is None else [example.pair for example in examples]
    return [example.text for example in examples], pairs


def hash_files(folder: Path) -> str:
    """Hash the files of a checkpoint that decide what it computes, names included."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _DECISIVE for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
