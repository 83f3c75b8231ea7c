"""Golden outputs: inputs over a spread of lengths, batches, paddings and sentences, with what PyTorch gives for them.

They travel inside an artifact as ``golden.npz``, so that it can be verified where neither torch nor the checkpoint is.
Of large outputs a fixed part is kept: the first, middle and last token of each row, and at most 512 columns.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from squeezebert.artifact import GOLDEN
from squeezebert.data.collate import collate
from squeezebert.errors import InputError

if TYPE_CHECKING:
    from squeezebert.tokenizer import Tokenizer

Ints = NDArray[np.int64]
Outputs = Mapping[str, NDArray[np.float32]]
Run = Callable[[Ints, Ints, Ints], Outputs]
"""A model: ids, mask and segments ``[B, T]`` -> outputs by name."""

LENGTHS = (
    (1,), (2,), (31,), (128,), (512,),
    (31, 2, 17),
    (128, 1, 31, 2, 64, 127, 100, 128),
)  # fmt: skip
"""Tokens of each row of each batch, batches of 1, 3 and 8; a length beyond the model's is cut to it."""

_MOST_COLUMNS = 512

SENTENCES = (
    "A gripping, beautifully shot film that earns every minute of its length.",
    "The hinge broke within a week, and nobody answered my letters.",
    "I can't say that I didn't enjoy it.",
    "Not bad at all!",
    "The plot is thin; the acting, thinner still.",
    "It arrived on 3 May 2021 for $49.99, two days late.",
    "Nothing about this restaurant is worth a second visit.",
    "Warm, funny and wise.",
    "The committee will publish its findings before the end of the year.",
    "She had never seen the sea, and now it filled the whole window.",
    "Why would anyone pay for this?",
    "The battery lasts a day and a half if the screen is kept dim.",
    "An uneven but often moving portrait of a family that has forgotten how to talk.",
    "He opened the box, looked inside, and closed it again without a word.",
    "Prices rose by four per cent in March, more than economists had expected.",
    "Boring.",
    "The second half, in which almost nothing happens, is the better one.",
    "You can tell that the people who made it love their work.",
    "Do not buy the blue one: its colour comes off on your hands.",
    "The train from Zürich was on time; the café at the station was closed.",
    "It is the kind of book that one lends and never gets back.",
    "The instructions were wrong in three places, yet we put it together in an hour.",
    "This is, without doubt, the worst service I have had in years.",
    "Good value, quick delivery, no complaints.",
)
"""Sentences of the ordinary kind that classifiers read; a model of pairs reads each with the next one."""


@dataclass(frozen=True)
class Probe:
    """One batch of inputs."""

    ids: Ints
    """*Shape:* ``[B, T]``."""
    mask: Ints
    types: Ints
    sentences: bool
    """Whether the rows are real sentences."""


def probes(
    tokenizer: Tokenizer | None, *, vocab_size: int, max_length: int, pair: bool | None, seed: int = 0
) -> list[Probe]:
    """Inputs that verification runs.

    Args:
        tokenizer: The model's; None: no sentences.
        vocab_size: Token ids lie below it.
        max_length: Longest sequence of the model, tokens.
        pair: Whether the model reads pairs.
        seed: Of the random token ids.
    """
    draw = np.random.default_rng(seed)
    found = []
    for lengths in dict.fromkeys(tuple(min(each, max_length) for each in row) for row in LENGTHS):
        mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
        ids = draw.integers(0, vocab_size, mask.shape) * mask
        types = (np.arange(mask.shape[1]) >= np.array(lengths)[:, None] // 2).astype(np.int64) * mask
        found.append(Probe(ids, mask, types, sentences=False))
    if tokenizer is None:
        return found
    encodings = tokenizer.encode_batch(
        SENTENCES, [*SENTENCES[1:], SENTENCES[0]] if pair else None, max_length=max_length
    )
    for start in range(0, len(encodings), 8):
        rows = encodings[start : start + 8]
        batch = collate(rows, indices=range(len(rows)), pad_id=tokenizer.pad_id)
        found.append(Probe(batch.input_ids, batch.attention_mask, batch.token_type_ids, sentences=True))
    return found


@dataclass(frozen=True)
class Golden:
    """Probes and the outputs that the artifact must give."""

    probes: Sequence[Probe]
    outputs: Sequence[Outputs]
    """Of each probe, as :func:`kept` leaves them."""
    labels: tuple[str, ...]
    """Names of the checkpoint's labels, in the order of its outputs."""


def record(probes: Sequence[Probe], run: Run, labels: tuple[str, ...]) -> Golden:
    """Run a model over the probes."""
    return Golden(probes, [kept(run(each.ids, each.mask, each.types), each.mask) for each in probes], labels)


def kept(outputs: Outputs, mask_BT: Ints) -> dict[str, NDArray[np.float32]]:
    """The part of a batch's outputs that is kept and compared. *Shapes:* ``[B, K]``, or ``[B, 3, K]`` of tokens'."""
    parts = {}
    for name, values in outputs.items():
        if values.ndim == 3:
            last = mask_BT.sum(axis=1) - 1
            places = np.stack([np.zeros_like(last), last // 2, last], axis=1)
            values = np.take_along_axis(values, places[:, :, None], axis=1)
        step = -(-values.shape[-1] // _MOST_COLUMNS)
        parts[name] = np.asarray(values[..., ::step], dtype=np.float32)
    return parts


def save(golden: Golden, folder: str | Path) -> None:
    """Write ``golden.npz``."""
    arrays: dict[str, NDArray[Any]] = {"labels": np.array(golden.labels, dtype=np.str_)}
    for index, (probe, outputs) in enumerate(zip(golden.probes, golden.outputs, strict=True)):
        inputs = {"ids": probe.ids, "mask": probe.mask, "types": probe.types, "sentences": np.array(probe.sentences)}
        arrays |= {f"{index}.{name}": values for name, values in inputs.items()}
        arrays |= {f"{index}.out.{name}": values for name, values in outputs.items()}
    np.savez_compressed(Path(folder) / GOLDEN, **arrays)  # type: ignore[arg-type]


def load(folder: str | Path) -> Golden:
    """Read ``golden.npz``.

    Raises:
        InputError: It is missing or damaged.
    """
    path = Path(folder) / GOLDEN
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = dict(file)
        found: list[Probe] = []
        outputs: list[Outputs] = []
        while f"{len(found)}.ids" in arrays:
            index = len(found)
            ids, mask, types, sentences = (arrays[f"{index}.{name}"] for name in ("ids", "mask", "types", "sentences"))
            found.append(Probe(ids, mask, types, bool(sentences)))
            start = f"{index}.out."
            outputs.append({name[len(start) :]: each for name, each in arrays.items() if name.startswith(start)})
        if not found:
            raise ValueError("it holds no inputs")
        return Golden(found, outputs, tuple(arrays["labels"].tolist()))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the checkpoint with --checkpoint, or export it again") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}); export the checkpoint again") from None
