"""The zip that GLUE's server scores: predictions for the test sets, written and checked.

Names, columns and label words as question 1 of the benchmark's FAQ (gluebenchmark.com/faq) asks for them, and as
nyu-mll/jiant writes them (``src/evaluate.py``): eleven tab-separated files with the header ``index``, ``prediction``;
entailment tasks but WNLI answer in words, STS-B with a value from 0 to 5, the others with 0 or 1.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.data.tasks import GLUE, Task, load_split
from squeezebert.errors import InputError
from squeezebert.evaluation.metrics import decide
from squeezebert.files import atomic_path

if TYPE_CHECKING:
    from squeezebert.data.examples import Example
    from squeezebert.data.tasks import Kind
    from squeezebert.evaluation.evaluate import Run


@dataclass(frozen=True)
class SubmissionFile:
    """One of the zip's files."""

    name: str
    """Name in the zip."""
    task: Task
    """The task whose test set it answers."""
    split: str
    """That test set."""
    model: str
    """Name of the task whose model answers: the diagnostics have none of their own."""

    @property
    def rows(self) -> int:
        """Rows that the server expects."""
        return self.task.splits[self.split].rows

    @property
    def words(self) -> tuple[str, ...]:
        """How the classes are written, in the order of the task's labels; empty for a value."""
        return self.task.file_labels or self.task.labels


FILES: tuple[SubmissionFile, ...] = (
    *(
        SubmissionFile(f"{GLUE[name].folder}.tsv", GLUE[name], "test", name)
        for name in ("cola", "sst2", "mrpc", "stsb", "qqp")
    ),
    SubmissionFile("MNLI-m.tsv", GLUE["mnli"], "test", "mnli"),
    SubmissionFile("MNLI-mm.tsv", GLUE["mnli"], "test_mismatched", "mnli"),
    *(SubmissionFile(f"{GLUE[name].folder}.tsv", GLUE[name], "test", name) for name in ("qnli", "rte", "wnli")),
    SubmissionFile("AX.tsv", GLUE["ax"], "test", "mnli"),
)
"""The eleven files."""

INCOMPLETE = "INCOMPLETE.txt"
"""A file that marks a zip as not ready to be submitted; it lists what is missing."""

_HEADER = "index\tprediction"
_HIGHEST = 5.0  # STS-B's scale
_LARGEST = 1 << 26  # bytes; QQP, the longest, has under 4 MB
_SHOWN = 3  # bad rows that are told of each file


def read_test_set(file: SubmissionFile, data_dir: Path | None) -> list[Example]:
    """Read the test set that a file answers.

    Args:
        file: Which one.
        data_dir: Root of the official GLUE files; None: the hub's copy.

    Raises:
        InputError: It cannot be read, or has not its official number of rows.
    """
    examples = load_split(file.task, file.split, data_dir)
    if len(examples) != file.rows:
        raise InputError(
            f"{file.task.name}: the {file.split} set has {len(examples):,} rows, but the server expects "
            f"{file.rows:,}; fetch it again with: squeezebert glue download {file.task.name}"
        )
    return examples


def answer(
    file: SubmissionFile, examples: Sequence[Example], run: Run, *, kind: Kind, labels: Sequence[str]
) -> list[str]:
    """Predict a test set.

    Args:
        file: Which one.
        examples: Its rows, from :func:`read_test_set`.
        run: The model: a stream of (text, second text or None) -> logits ``[K]`` each, in order.
        kind: What its outputs stand for.
        labels: Names of its outputs, in the task's order.

    Returns:
        Predictions in the order of the rows, as the server reads them.

    Raises:
        InputError: The model is another task's.
    """
    task = file.task
    if kind != task.kind or (kind != "regression" and tuple(labels) != task.labels):
        found = "a value" if kind == "regression" else ", ".join(labels)
        raise InputError(
            f"{task.name}: the model's outputs ({found}) are not the task's ({', '.join(task.labels) or 'a value'}); "
            "submit a suite that glue run made"
        )
    logits = np.stack(list(run((example.text, example.pair) for example in examples)))
    return to_words(file, logits)


def to_words(file: SubmissionFile, logits_BK: NDArray[Any]) -> list[str]:
    """Write a model's logits as the server reads predictions; values are kept within STS-B's scale."""
    decisions = decide(file.task.kind, logits_BK)
    if file.task.kind == "regression":
        return [f"{min(max(float(value), 0.0), _HIGHEST):.3f}" for value in decisions]
    return [file.words[int(decision)] for decision in decisions]


def write_submission(path: Path, predictions: Mapping[str, Sequence[str]]) -> None:
    """Write the zip, the same bytes for the same predictions, and check it.

    Args:
        path: Where to.
        predictions: Name of a file -> its predictions in order. Where some of the eleven are missing, the zip is marked
            by :data:`INCOMPLETE`.

    Raises:
        InputError: A file has a wrong number of rows or a prediction that the server would not read.
        OSError: It cannot be written.
    """
    contents = {
        file.name: "".join(f"{line}\n" for line in [_HEADER, *_numbered(predictions[file.name])])
        for file in FILES
        if file.name in predictions
    }
    missing = [file.name for file in FILES if file.name not in predictions]
    if missing:
        contents[INCOMPLETE] = f"Not ready to be submitted: {', '.join(missing)} missing.\n"
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in contents.items():
                # A fixed date, for equal bytes.
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, text)
        problems = [each for each in check_submission(temporary) if not (missing and _is_of_absence(each))]
        if problems:
            raise InputError(f"{path}: {'; '.join(problems)}")


def _numbered(predictions: Iterable[str]) -> list[str]:
    return [f"{index}\t{prediction}" for index, prediction in enumerate(predictions)]


def check_submission(path: str | Path) -> list[str]:
    """Test any zip against the benchmark's rules: names, headers, number and order of rows, label words, STS-B's range.

    Returns:
        What is wrong, a line each that names file and row; nothing for a zip that may be submitted.

    Raises:
        InputError: The file is missing or no zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _check_archive(archive)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(f"{path}: not a zip that can be read ({error}); write it again") from None


def _check_archive(archive: zipfile.ZipFile) -> list[str]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    problems = []
    for name, number in _counts(entry.filename for entry in archive.infolist()).items():
        if number > 1:
            problems.append(f"{name}: {number} times in the zip; keep one")
        if name not in {file.name for file in FILES} and name != INCOMPLETE:
            problems.append(f"{name}: not one of the eleven files, which lie in no folder; take it out")
    if INCOMPLETE in entries:
        problems.append(f"{INCOMPLETE}: marks the zip as not ready; write it again with all test sets")
    for file in FILES:
        if file.name not in entries:
            problems.append(f"{file.name}: {_ABSENCE}")
        elif entries[file.name].file_size > _LARGEST:
            problems.append(f"{file.name}: {entries[file.name].file_size:,} bytes, too large for its rows")
        else:
            problems += [f"{file.name}{problem}" for problem in _check_file(file, archive.read(file.name))]
    return problems


_ABSENCE = "(missing)"


def _is_of_absence(problem: str) -> bool:
    return problem.startswith(INCOMPLETE) or problem.endswith(_ABSENCE)


def _counts(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _check_file(file: SubmissionFile, content: bytes) -> list[str]:
    """What is wrong with one file, each as ``:line: ...`` or ``: ...``."""
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return [": not text in UTF-8"]
    if lines[-1] == "":
        lines.pop()
    if not lines or lines[0] != _HEADER:
        return [f":1: the header is {lines[0] if lines else ''!r}, not 'index', a tab, 'prediction'"]
    rows = lines[1:]
    problems = []
    if len(rows) != file.rows:
        problems.append(f": {len(rows):,} rows, not {file.rows:,}")
    bad = [
        f":{number + 2}: {problem}"
        for number, row in enumerate(rows)
        if (problem := _check_row(file, number, row)) is not None
    ]
    if len(bad) > _SHOWN:
        bad[_SHOWN:] = [f": and {len(bad) - _SHOWN:,} more bad rows"]
    return problems + bad


def _check_row(file: SubmissionFile, number: int, row: str) -> str | None:
    index, *cells = row.split("\t")
    if len(cells) != 1:
        return f"{len(cells) + 1} columns, not 2"
    if index != str(number):
        return f"index {index!r}, not {number}"
    prediction = cells[0]
    if file.words:
        return None if prediction in file.words else f"{prediction!r} is none of {', '.join(file.words)}"
    try:
        value = float(prediction)
    except ValueError:
        value = math.nan
    return None if 0 <= value <= _HIGHEST else f"{prediction!r} is not a number from 0 to 5"
