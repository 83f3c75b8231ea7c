"""The labelled examples of a finetuning run: a GLUE task's, or those of a user's tables."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from squeezebert.data.examples import Example, Label
from squeezebert.data.tables import Columns, load_table
from squeezebert.data.tasks import Kind, Task, coverage, get_task, load_split
from squeezebert.errors import InputError
from squeezebert.training.settings import FinetuneSettings

HELD_OUT = 0.1
"""Share of the training data that chooses the best checkpoint where no dev data are given."""


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """What a run learns from and is scored on."""

    task: Task
    train: list[Example]
    dev: dict[str, list[Example]]
    """Data set -> examples; the first of them chooses the best checkpoint."""
    notes: tuple[str, ...]
    """For people: where each part comes from and how much of it there is."""


def read_labelled_data(settings: FinetuneSettings) -> LabelledData:
    """Read the data that ``settings`` name.

    Raises:
        InputError: They name none, or it cannot be read; the message names file and line.
    """
    if settings.task is not None:
        return _read_glue(settings)
    if settings.train is None:
        raise InputError("settings: give task, for GLUE, or train, for a table of your own")
    columns = Columns(settings.text_column, settings.pair_column, settings.label_column)
    kind: Kind = "regression" if settings.regression else "multi_label" if settings.multi_label else "single_label"
    task, train = load_table(settings.train, columns, kind=kind)
    if settings.dev is not None:
        _, dev = load_table(settings.dev, columns, task=task)
        return with_dev(task, train, dev, f"{settings.train}, ", f"{settings.dev}, ")
    return hold_out(task, train, str(settings.train))


def _read_glue(settings: FinetuneSettings) -> LabelledData:
    assert settings.task is not None
    task = get_task(settings.task)
    names = ["train", *(name for name in task.splits if name.startswith("validation"))]
    parts = {name: load_split(task, name, settings.data_dir) for name in names}
    notes = tuple(f"{name}: {coverage(task, name, len(examples)).describe()}" for name, examples in parts.items())
    return LabelledData(task=task, train=parts.pop("train"), dev=parts, notes=notes)


def with_dev(
    task: Task, train: list[Example], dev: list[Example], train_source: str = "", dev_source: str = ""
) -> LabelledData:
    """Put training and dev data together; the notes tell how much of the dev data the model learns from, too.

    Args:
        task: What the examples are labelled for.
        train: To learn from.
        dev: To choose the best checkpoint.
        train_source: What opens the note on ``train``: where it comes from.
        dev_source: The same of ``dev``.
    """
    learned = {(example.text, example.pair) for example in train}
    shared = sum((example.text, example.pair) in learned for example in dev)
    notes = [f"train: {train_source}{len(train):,} rows", f"dev: {dev_source}{len(dev):,} rows"]
    if shared:
        notes.append(f"dev: {shared:,} rows also occur in train, so the scores flatter the model")
    return LabelledData(task=task, train=train, dev={"dev": dev}, notes=tuple(notes))


def hold_out(task: Task, examples: list[Example], source: str) -> LabelledData:
    """Set a tenth of the examples aside as dev data: of each class its tenth, always the same ones.

    Rows of equal text stay together. Those of texts that occur in several classes all stay in training.

    Args:
        task: What the examples are labelled for.
        examples: All there are; at least one stays in training, of each class too.
        source: What the examples are called in the notes.

    Raises:
        InputError: There are too few examples.
    """
    copies = defaultdict(list)
    for index, example in enumerate(examples):
        copies[example.text, example.pair].append(index)
    classes: dict[Label | None, list[list[int]]] = defaultdict(list)
    for members in copies.values():
        if task.kind != "single_label":
            classes[None].append(members)
        elif len({examples[index].label for index in members}) == 1:
            classes[examples[members[0]].label].append(members)
    generator = np.random.default_rng(0)
    held: set[int] = set()
    for texts in classes.values():
        number = min(max(1, round(HELD_OUT * len(texts))), len(texts) - 1)
        for chosen in generator.choice(len(texts), number, replace=False):
            held.update(texts[chosen])
    if not held:
        raise InputError(f"{source}: too few different texts to hold some out for evaluation; give dev data")
    train = [example for index, example in enumerate(examples) if index not in held]
    dev = [examples[index] for index in sorted(held)]
    notes = (
        f"train: {source}, {len(train):,} of {len(examples):,} rows",
        f"held_out: {source}, the other {len(dev):,} rows, chosen at random in each class"
        if task.kind == "single_label"
        else f"held_out: {source}, the other {len(dev):,} rows, chosen at random",
    )
    return LabelledData(task=task, train=train, dev={"held_out": dev}, notes=notes)
