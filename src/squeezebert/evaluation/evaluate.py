"""Labelled examples through any model -> its scores, and a folder that holds them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.data.label_names import find_places
from squeezebert.errors import InputError
from squeezebert.evaluation.metrics import decide, score
from squeezebert.files import write_json, write_text

if TYPE_CHECKING:
    from squeezebert.data.examples import Example, Label
    from squeezebert.data.tables import Columns
    from squeezebert.data.tasks import Kind, Task
    from squeezebert.runtime.engines import Engine

Run = Callable[[Iterable[tuple[str, str | None]]], Iterable[NDArray[np.float32]]]
"""Any model: a stream of (text, second text or None) -> logits ``[K]`` each, in order."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model made of a task's examples."""

    scores: Mapping[str, float]
    """Metric -> value, a fraction."""
    logits: NDArray[np.float32]
    """In the order of the task's labels. *Shape:* ``[B, K]``."""


def evaluate(task: Task, examples: Sequence[Example], run: Run, *, kind: Kind, labels: Sequence[str]) -> Evaluation:
    """Score a model on labelled examples.

    Args:
        task: What the examples are labelled with.
        examples: All labelled.
        run: The model.
        kind: What its outputs stand for.
        labels: Names of its outputs in order; any order of the task's labels will do.

    Raises:
        InputError: There is nothing to score, an example has no label, or the model is one for another task.
    """
    order = _match(task, kind, labels)
    unlabelled = sum(example.label is None for example in examples)
    if unlabelled:
        raise InputError(
            f"{task.name}: {unlabelled} of {len(examples)} examples have no label, so they cannot be scored"
        )
    rows = list(run((example.text, example.pair) for example in examples))
    logits = np.stack(rows)[:, order] if rows else np.zeros((0, task.num_labels), dtype=np.float32)
    return Evaluation(score(task, logits, [example.label for example in examples]), logits)


def read_table(path: str | Path, columns: Columns, engine: Engine, model: str | Path) -> tuple[Task, list[Example]]:
    """Read a user's labelled table as the task that a model was trained for.

    Args:
        path: The table.
        columns: Which to read.
        engine: The model.
        model: Its name, for messages.

    Raises:
        InputError: The table is malformed, has a label that the model lacks, or single texts where the model takes
            pairs, or the reverse.
    """
    from squeezebert.data.tables import METRICS, load_table
    from squeezebert.data.tasks import Task

    pair = columns.pair is not None
    if engine.pair is not None and engine.pair != pair:
        form = "pairs of texts; name the second column with" if engine.pair else "single texts; leave out"
        raise InputError(f"{model}: a model of {form} --pair-column")
    task = Task(
        name=Path(path).name,
        kind=engine.kind,
        labels=() if engine.kind == "regression" else engine.labels,
        metrics=METRICS[engine.kind],
        primary_metric=METRICS[engine.kind][0],
        pair=pair,
    )
    return task, load_table(path, columns, task=task)[1]


def _match(task: Task, kind: Kind, labels: Sequence[str]) -> list[int]:
    """Where each of the task's labels stands in the model's outputs."""
    if kind != task.kind:
        raise InputError(f"the model gives {_KINDS[kind]} for a text, but {task.name} asks for {_KINDS[task.kind]}")
    if kind == "regression":
        return [0]
    places = find_places(task.labels, labels)
    if places is not None:
        return places
    raise InputError(
        f"the model's labels ({', '.join(labels)}) are not those of {task.name} ({', '.join(task.labels)}); "
        "evaluate a model of this task, or name its outputs in id2label of its config.json"
    )


_KINDS: dict[Kind, str] = {
    "single_label": "one label",
    "multi_label": "any number of labels",
    "regression": "a value (regression)",
}


def save(
    evaluation: Evaluation, task: Task, examples: Sequence[Example], folder: str | Path, about: Mapping[str, Any]
) -> None:
    """Write ``metrics.json`` (``about`` and the scores) and ``predictions.jsonl`` (index, label, prediction, logits).

    Labels are written by name, values of a regression as numbers.

    Raises:
        OSError: The folder cannot be written.
    """
    lines = []
    for index, (example, decision, logits) in enumerate(
        zip(examples, decide(task.kind, evaluation.logits).tolist(), evaluation.logits.tolist(), strict=True)
    ):
        record = {
            "index": index,
            "label": _name(task, example.label),
            "prediction": _name(task, decision),
            "logits": logits,
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text(Path(folder) / "predictions.jsonl", "".join(lines))
    write_json(Path(folder) / "metrics.json", {**about, "labels": task.labels, "metrics": dict(evaluation.scores)})


def _name(task: Task, label: Label | Sequence[int] | None) -> str | float | list[str] | None:
    """A label as people write it."""
    if isinstance(label, (tuple, list)):
        return [name for name, yes in zip(task.labels, label, strict=True) if yes]
    if task.kind == "single_label" and isinstance(label, int):
        return task.labels[label]
    return label  # type: ignore[return-value]
