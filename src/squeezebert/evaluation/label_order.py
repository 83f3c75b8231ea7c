"""Which output of a classifier means what, found from examples whose answers are known.

The published MNLI checkpoint does not say it, and data sets disagree (contradiction, entailment, neutral in the older;
entailment, neutral, contradiction in the newer); a wrong guess scores about 4 % where 90 % is right
(github.com/huggingface/transformers/issues/10401).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.errors import InputError
from squeezebert.files import read_json

if TYPE_CHECKING:
    from squeezebert.checkpoint import Loaded

MOST_LABELS = 4
"""All orders are tried, 24 of four labels."""
LEAST_Z = 3.0
"""How far ahead of the second order the best must be, in standard deviations of chance."""


@dataclass(frozen=True)
class Pair:
    """Two texts and how the second follows from the first."""

    premise: str
    hypothesis: str
    label: str


@dataclass(frozen=True)
class LabelOrder:
    """The order found, and how sure it is."""

    labels: tuple[str, ...]
    """Name of each output."""
    accuracy: float
    """Share of the examples that are right under this order, 0..1."""
    runner_up: float
    """The same under the second-best order, 0..1."""
    z: float
    """Examples that only the best order has right, less those that only the second has, over the root of their sum."""


def calibrate_label_order(logits_NK: NDArray[Any], gold_labels: Sequence[str]) -> LabelOrder:
    """Choose the order of labels under which the most examples are right.

    Args:
        logits_NK: A model's scores, ``[N, K]``.
        gold_labels: The N true labels; K different ones occur.

    Raises:
        InputError: There are more than four outputs, or not as many labels as outputs; or the best order is not
            clearly better than the second (a sign test on the examples that tell the two apart, z below 3).
    """
    outputs = logits_NK.shape[1]
    names = sorted(set(gold_labels))
    if outputs > MOST_LABELS:
        raise InputError(f"the order of {outputs} labels cannot be calibrated; {MOST_LABELS} are the most")
    if len(names) != outputs:
        raise InputError(
            f"the model has {outputs} outputs, but the examples have {len(names)} labels: {', '.join(names)}"
        )
    predicted_N = logits_NK.argmax(1)
    gold_N = np.array(gold_labels)
    orders = list(itertools.permutations(names))
    right_ON = np.array([np.array(order)[predicted_N] == gold_N for order in orders])
    best, second = np.argsort(-right_ON.sum(1), kind="stable")[:2] if outputs > 1 else (0, 0)
    only_best = int((right_ON[best] & ~right_ON[second]).sum())
    only_second = int((right_ON[second] & ~right_ON[best]).sum())
    z = (only_best - only_second) / math.sqrt(max(only_best + only_second, 1))
    found = LabelOrder(orders[best], float(right_ON[best].mean()), float(right_ON[second].mean()), z)
    if z < LEAST_Z:
        raise InputError(
            f"the order of the labels is unclear on {len(gold_N)} examples: {', '.join(found.labels)} has "
            f"{found.accuracy:.0%} right, {', '.join(orders[second])} {found.runner_up:.0%}; give more examples, "
            "or a model that was finetuned on this task"
        )
    return found


def built_in_pairs() -> list[Pair]:
    """45 pairs of sentences written for this purpose, 15 of each MNLI label."""
    return [Pair(**row) for row in read_json(Path(__file__).with_name("nli_pairs.json"))]


def score_pairs(loaded: Loaded, pairs: Sequence[Pair], batch_size: int = 32) -> NDArray[np.float32]:
    """Scores of a sequence classifier for each pair, ``[N, K]``.

    Raises:
        InputError: The model came without a vocabulary.
    """
    import torch

    from squeezebert.data.collate import collate

    tokenizer = loaded.tokenizer
    if tokenizer is None:
        raise InputError(
            f"{loaded.report.source}: no vocabulary, so texts cannot be scored; put its vocab.txt beside it"
        )
    batches = []
    for start in range(0, len(pairs), batch_size):
        part = pairs[start : start + batch_size]
        encodings = tokenizer.encode_batch(
            [pair.premise for pair in part],
            [pair.hypothesis for pair in part],
            max_length=loaded.config.max_position_embeddings,
        )
        batch = collate(encodings, indices=range(start, start + len(part)), pad_id=tokenizer.pad_id)
        with torch.inference_mode():
            ids, mask, types = map(torch.from_numpy, (batch.input_ids, batch.attention_mask, batch.token_type_ids))
            batches.append(loaded.model(ids, mask, types).logits.numpy())
    return np.concatenate(batches)
