"""Tasks as rows of one table: the nine of GLUE (Wang et al. 2019, arXiv:1804.07461) and its diagnostics.

Row counts and the order of labels are those of the hub's ``nyu-mll/glue`` (huggingface/datasets
``datasets/glue/dataset_infos.json``); file layout and columns are those of the official download.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from squeezebert.data.examples import Example, Label
from squeezebert.errors import InputError, require
from squeezebert.lines import numbered_lines
from squeezebert.model.config import ProblemType

Kind = Literal["single_label", "multi_label", "regression"]
_PROBLEM_TYPES: dict[Kind, ProblemType] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """One file of a GLUE task."""

    file: str
    """Name inside the task's folder."""
    hub: str
    """Name of the split in ``nyu-mll/glue``."""
    rows: int
    """Rows of the official split."""
    broken_rows: int = 0
    """Rows of the official file, beside those, that lack columns. They are left out, as the hub does."""
    labelled: bool = True
    """Whether the file tells the answers."""
    columns: tuple[str, ...] = ()
    """The columns of a file that has no header; empty: the file's first line names them."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be predicted, and how it is scored. The fields after ``pair`` describe GLUE's files only."""

    name: str
    """Short name, as on the hub."""
    kind: Kind
    """Form of the label: one class, any number of classes, or a value."""
    labels: tuple[str, ...] = ()
    """Names of the classes in the order of the model's outputs; empty for regression."""
    metrics: tuple[str, ...]
    """Names of the metrics to report, keys of ``evaluation.metrics.METRICS``."""
    primary_metric: str
    """The metric that chooses the best checkpoint; one of ``metrics``."""
    pair: bool
    """Whether an example is two texts."""
    folder: str = ""
    """Folder inside the GLUE root."""
    text_columns: tuple[str, ...] = ()
    """Columns of the text, or of the two texts, in the files."""
    label_column: str = ""
    """Column of the label in the files."""
    file_labels: tuple[str, ...] = ()
    """How the files spell the classes, in the order of ``labels``; empty: just as ``labels``."""
    hub_columns: tuple[str, ...] = ()
    """Columns of the text, or of the two texts, on the hub."""
    splits: Mapping[str, Split] = field(default_factory=dict, hash=False)
    """Split name -> file."""

    @property
    def num_labels(self) -> int:
        """Outputs of a model for this task: one for each class, 1 for regression."""
        return 1 if self.kind == "regression" else len(self.labels)

    @property
    def problem_type(self) -> ProblemType:
        """What a model's configuration calls the kind."""
        return _PROBLEM_TYPES[self.kind]


def _splits(train: int, validation: int, test: int, columns: tuple[str, ...] = ()) -> dict[str, Split]:
    """The three files that most tasks have; ``columns`` where train and dev have no header."""
    return {
        "train": Split(file="train.tsv", hub="train", rows=train, columns=columns),
        "validation": Split(file="dev.tsv", hub="validation", rows=validation, columns=columns),
        "test": Split(file="test.tsv", hub="test", rows=test, labelled=False),
    }


_DIGITS = ("0", "1")
_SENTENCES = ("sentence1", "sentence2")

_ROWS = (
    Task(
        name="cola", kind="single_label", labels=("unacceptable", "acceptable"), file_labels=_DIGITS, pair=False,
        metrics=("matthews_correlation", "accuracy"), primary_metric="matthews_correlation",
        folder="CoLA", text_columns=("sentence",), label_column="label", hub_columns=("sentence",),
        splits=_splits(8_551, 1_043, 1_063, columns=("source", "label", "original_mark", "sentence")),
    ),
    Task(
        name="sst2", kind="single_label", labels=("negative", "positive"), file_labels=_DIGITS, pair=False,
        metrics=("accuracy",), primary_metric="accuracy",
        folder="SST-2", text_columns=("sentence",), label_column="label", hub_columns=("sentence",),
        splits=_splits(67_349, 872, 1_821),
    ),
    Task(
        name="mrpc", kind="single_label", labels=("not_equivalent", "equivalent"), file_labels=_DIGITS, pair=True,
        metrics=("accuracy", "f1", "accuracy_and_f1"), primary_metric="accuracy_and_f1",
        folder="MRPC", text_columns=("#1 String", "#2 String"), label_column="Quality", hub_columns=_SENTENCES,
        splits=_splits(3_668, 408, 1_725),
    ),
    Task(
        name="stsb", kind="regression", pair=True,
        metrics=("pearson", "spearman", "pearson_and_spearman"), primary_metric="pearson_and_spearman",
        folder="STS-B", text_columns=_SENTENCES, label_column="score", hub_columns=_SENTENCES,
        splits=_splits(5_749, 1_500, 1_379),
    ),
    Task(
        name="qqp", kind="single_label", labels=("not_duplicate", "duplicate"), file_labels=_DIGITS, pair=True,
        metrics=("accuracy", "f1", "accuracy_and_f1"), primary_metric="accuracy_and_f1",
        folder="QQP", text_columns=("question1", "question2"), label_column="is_duplicate",
        hub_columns=("question1", "question2"),
        splits={
            **_splits(363_846, 40_430, 390_965),
            "train": Split(file="train.tsv", hub="train", rows=363_846, broken_rows=3),
        },
    ),
    Task(
        name="mnli", kind="single_label", labels=("entailment", "neutral", "contradiction"), pair=True,
        metrics=("accuracy",), primary_metric="accuracy",
        folder="MNLI", text_columns=_SENTENCES, label_column="gold_label", hub_columns=("premise", "hypothesis"),
        splits={
            "train": Split(file="train.tsv", hub="train", rows=392_702),
            "validation": Split(file="dev_matched.tsv", hub="validation_matched", rows=9_815),
            "validation_mismatched": Split(file="dev_mismatched.tsv", hub="validation_mismatched", rows=9_832),
            "test": Split(file="test_matched.tsv", hub="test_matched", rows=9_796, labelled=False),
            "test_mismatched": Split(file="test_mismatched.tsv", hub="test_mismatched", rows=9_847, labelled=False),
        },
    ),
    Task(
        name="qnli", kind="single_label", labels=("entailment", "not_entailment"), pair=True,
        metrics=("accuracy",), primary_metric="accuracy",
        folder="QNLI", text_columns=("question", "sentence"), label_column="label",
        hub_columns=("question", "sentence"),
        splits=_splits(104_743, 5_463, 5_463),
    ),
    Task(
        name="rte", kind="single_label", labels=("entailment", "not_entailment"), pair=True,
        metrics=("accuracy",), primary_metric="accuracy",
        folder="RTE", text_columns=_SENTENCES, label_column="label", hub_columns=_SENTENCES,
        splits=_splits(2_490, 277, 3_000),
    ),
    Task(
        name="wnli", kind="single_label", labels=("not_entailment", "entailment"), file_labels=_DIGITS, pair=True,
        metrics=("accuracy",), primary_metric="accuracy",
        folder="WNLI", text_columns=_SENTENCES, label_column="label", hub_columns=_SENTENCES,
        splits=_splits(635, 71, 146),
    ),
    Task(
        # The diagnostic set is answered by a model of MNLI, so it has MNLI's labels.
        name="ax", kind="single_label", labels=("entailment", "neutral", "contradiction"), pair=True,
        metrics=("matthews_correlation",), primary_metric="matthews_correlation",
        folder="diagnostic", text_columns=_SENTENCES, hub_columns=("premise", "hypothesis"),
        splits={"test": Split(file="diagnostic.tsv", hub="test", rows=1_104, labelled=False)},
    ),
)  # fmt: skip

GLUE: dict[str, Task] = {task.name: task for task in _ROWS}
"""Name -> task: the nine tasks, and ``ax``, the diagnostics."""


def get_task(name: str) -> Task:
    """Find a GLUE task by its name, in any spelling that is in use: ``sst2``, ``SST-2``, ``sts_b``.

    Raises:
        InputError: There is no such task; the message lists those that there are.
    """
    spellings = {spelling: task for task in _ROWS for spelling in (task.name, _plain(task.folder))}
    if _plain(name) not in spellings:
        raise InputError(f"there is no GLUE task {name!r}; there are {', '.join(GLUE)}")
    return spellings[_plain(name)]


def _plain(name: str) -> str:
    """Lower case, without hyphens and underscores."""
    return name.lower().replace("-", "").replace("_", "")


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of an official split is at hand. Scores from a part do not compare with published ones."""

    rows: int
    """Rows at hand."""
    official: int
    """Rows of the official split."""
    broken: int = 0
    """Rows of the official file, beside those, that are left out because they lack columns."""

    @property
    def complete(self) -> bool:
        """Whether these are as many rows as the official split has; more are those of another release."""
        return self.rows == self.official

    def describe(self) -> str:
        """For people: ``872 rows, complete`` or ``19,734 of 392,702 rows (5.0 %)``."""
        if self.complete:
            left_out = f" (without the official file's {self.broken} broken rows)" if self.broken else ""
            return f"{self.rows:,} rows, complete{left_out}"
        return f"{self.rows:,} of {self.official:,} rows ({100 * self.rows / self.official:.1f} %)"


def coverage(task: Task, split: str, rows: int) -> Coverage:
    """Compare the number of rows at hand with the official split's.

    Raises:
        InputError: The task has no such split.
    """
    found = _find_split(task, split)
    return Coverage(rows, found.rows, found.broken_rows)


def load_split(task: Task, split: str, data_dir: str | Path | None) -> list[Example]:
    """Read one split of a GLUE task.

    Args:
        task: A row of :data:`GLUE`.
        split: ``train``, ``validation`` or ``test``; MNLI's plain names are the matched sets, beside
            ``validation_mismatched`` and ``test_mismatched``; ``ax`` has ``test`` only.
        data_dir: Folder of the official download: the root or the task's own; None: the hub's ``nyu-mll/glue``.

    Returns:
        The rows in the file's order, without the split's known broken ones; those of test splits are unlabelled.

    Raises:
        InputError: The task has no such split, its file is missing, or a row is malformed; the message names file
            and line. Or the hub cannot be reached.
        MissingExtraError: The hub is asked for and ``datasets`` is not installed.
    """
    found = _find_split(task, split)
    if data_dir is None:
        return _read_hub(task, found)
    return list(_read_file(task, found, _find_file(task, found, Path(data_dir))))


def _find_split(task: Task, split: str) -> Split:
    if not task.splits:
        raise InputError(f"{task.name} is not a GLUE task, so it has no splits; give its tables instead")
    if split not in task.splits:
        raise InputError(f"{task.name} has no split {split!r}; it has {', '.join(task.splits)}")
    return task.splits[split]


def _find_file(task: Task, split: Split, data_dir: Path) -> Path:
    """The split's file in the GLUE root ``data_dir``, or in ``data_dir`` itself."""
    for folder in (data_dir / task.folder, data_dir):
        if (folder / split.file).is_file():
            return folder / split.file
    root = data_dir.parent if data_dir.name == task.folder else data_dir
    raise InputError(
        f"{task.name}: no {split.file} in {data_dir / task.folder} nor in {data_dir}; "
        f"fetch it with: squeezebert glue download {task.name} --output {root}"
    )


def _read_file(task: Task, split: Split, path: Path) -> Iterator[Example]:
    """Rows of a file in the official layout: tab-separated, never quoted, ended by a line feed alone."""
    lines = numbered_lines(path)
    columns = split.columns
    if not columns:
        _, header = next(lines, (1, ""))
        columns = tuple(header.split("\t"))
    wanted = [*task.text_columns, *([task.label_column] if split.labelled else [])]
    for name in wanted:
        if name not in columns:
            raise InputError(
                f"{path}:1: the header has no column {name!r}, so this is not GLUE's {task.folder}/{split.file}; "
                f"it has {', '.join(columns) if any(columns) else 'no columns':.200}"
            )
    places = [columns.index(name) for name in wanted]
    rows = broken = 0
    for number, line in lines:
        if not line:
            continue
        where = f"{path}:{number}"
        fields = line.split("\t")
        if len(fields) < len(columns):
            broken += 1
            if broken <= split.broken_rows:
                continue
            known = f"; the official file has {split.broken_rows} such rows, this is one more" if broken > 1 else ""
            raise InputError(f"{where}: {len(fields)} tab-separated columns where {len(columns)} are needed{known}")
        rows += 1
        cells = [fields[place] for place in places]
        yield Example(
            text=cells[0],
            pair=cells[1] if task.pair else None,
            label=_parse_label(task, cells[-1], where) if split.labelled else None,
        )
    if not rows:
        raise InputError(f"{path}: no rows; fetch it again with: squeezebert glue download {task.name}")


def _parse_label(task: Task, cell: str, where: str) -> Label:
    if task.kind == "regression":
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{where}: {task.label_column} {cell!r:.60} is not a number")
        return value
    spellings = task.file_labels or task.labels
    if cell not in spellings:
        raise InputError(f"{where}: {task.label_column} {cell!r:.60} is not one of {', '.join(spellings)}")
    return spellings.index(cell)


def _read_hub(task: Task, split: Split) -> list[Example]:
    datasets: Any = require("datasets", "train")
    try:
        rows = datasets.load_dataset("nyu-mll/glue", task.name, split=split.hub)
    # The client's errors share no base class: connection, time-out, offline mode, missing cache, bad answers.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{task.name}: cannot read nyu-mll/glue from the hub ({reason}); "
            "check the network, or give the folder of the official files with --data-dir"
        ) from error
    return [
        Example(
            text=row[task.hub_columns[0]],
            pair=row[task.hub_columns[1]] if task.pair else None,
            label=row["label"] if split.labelled else None,
        )
        for row in rows
    ]
