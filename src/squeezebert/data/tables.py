"""A user's own tables: CSV, TSV, JSON lines (these three also as .gz or .zst) and parquet, told apart by suffix.

- CSV follows RFC 4180: a field in double quotes may hold commas, line breaks and doubled quotes. UTF-8, comma.
- TSV is never quoted, as in GLUE: a quotation mark is part of the text, and a text holds neither tab nor line break.
- Both start with a header. Blank lines are skipped, but a TSV of one column has an empty text in each.
- JSON lines: one object a line.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from squeezebert.data.examples import Example, Label
from squeezebert.data.tasks import Kind, Task
from squeezebert.errors import InputError, require
from squeezebert.lines import lines_with_ends, numbered_lines

RawLabel = str | int | float | list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any] | None
"""A label as the file has it: text from CSV and TSV; also a number or a list from JSON lines and parquet. Labels that
come from Python may be tuples and sets, too."""

_LISTS = (list, tuple, set, frozenset)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table to read."""

    text: str
    """The text, or the first of a pair."""
    pair: str | None = None
    """The second text; None: single texts."""
    label: str | None = None
    """The label; None: unlabelled."""


@dataclass(slots=True)
class Row:
    """One row of a table, as it stands in the file."""

    text: str
    """The text; empty where the cell is empty or null."""
    pair: str | None
    """Second text; None: no such column was asked for."""
    label: RawLabel
    """The label; None: null, or no such column was asked for."""
    where: str
    """``file:line`` of the row's first line, or ``file: row N`` of a parquet file; for messages."""


_Cells = Iterator[tuple[str, Sequence[Any]]]
"""(where, cells of the wanted columns), row by row."""

# A quote left open must not swallow a file of any size; no text to classify is longer.
_LONGEST_FIELD = 1 << 26


def iter_rows(path: str | Path, columns: Columns) -> Iterator[Row]:
    """Read a table row by row, in constant memory.

    Empty texts pass; it is for the caller to refuse them.

    Raises:
        InputError: At once: the suffix is unknown or there is no such file. While reading: the file is empty, not
            text in UTF-8 or damaged, a column is missing or there twice, or a row is malformed; the message names
            file and line.
        MissingExtraError: Parquet or zstd is asked for and its package is not installed.
    """
    path = Path(path)
    reader = _reader(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: this is a folder, not a file")
    wanted = [name for name in (columns.text, columns.pair, columns.label) if name is not None]
    return _rows(reader(path, wanted), columns)


def _rows(cells_of_rows: _Cells, columns: Columns) -> Iterator[Row]:
    for where, cells in cells_of_rows:
        yield Row(
            text=_text(cells[0], columns.text, where),
            pair=None if columns.pair is None else _text(cells[1], columns.pair, where),
            label=None if columns.label is None else _raw_label(cells[-1], columns.label, where),
            where=where,
        )


def _text(cell: Any, column: str, where: str) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, str):
        raise InputError(f"{where}: column {column!r} holds {cell!r:.40}, not text")
    if not cell.isascii():
        try:
            cell.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{where}: column {column!r} holds half a surrogate pair, which is not a character"
            ) from None
    return cell


def _raw_label(cell: Any, column: str, where: str) -> RawLabel:
    if cell is None or isinstance(cell, (str, int, float, list)):
        return cell
    raise InputError(f"{where}: column {column!r} holds {cell!r:.40}; a label is text, a number or a list")


def _reader(path: Path) -> Callable[[Path, Sequence[str]], _Cells]:
    """The reader for the file's suffix."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in (".gz", ".zst")
    suffix = suffixes[-1 - packed] if len(suffixes) > packed else ""
    if suffix not in _READERS or (packed and suffix == ".parquet"):
        raise InputError(
            f"{path}: the name does not tell the format; use .csv, .tsv, .jsonl (also with .gz or .zst) or .parquet"
        )
    return _READERS[suffix]


def _places(header: Sequence[str], wanted: Sequence[str], where: str) -> list[int]:
    """Where the wanted columns stand in the header."""
    for name in wanted:
        if name not in header:
            raise InputError(f"{where}: no column {name!r}; there are {', '.join(map(repr, header))}")
        if header.count(name) > 1:
            raise InputError(f"{where}: {header.count(name)} columns are called {name!r}; rename all but one")
    return [header.index(name) for name in wanted]


def _csv_cells(path: Path, wanted: Sequence[str]) -> _Cells:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    reader = csv.reader(lines_with_ends(path), strict=True)
    header: list[str] = []
    places: list[int] = []
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{where}: {_describe_csv_error(str(error))}") from None
        if fields is None:
            return
        if not fields:
            continue
        if not header:
            header = [name.strip() for name in fields]
            places = _places(header, wanted, where)
        elif len(fields) != len(header):
            raise InputError(
                f"{where}: {len(fields)} fields where the header has {len(header)}; "
                "a text that holds a comma must stand in double quotes"
            )
        else:
            yield where, [fields[place] for place in places]


def _describe_csv_error(reason: str) -> str:
    if "unexpected end of data" in reason:
        return "the double quote that opens in this row is never closed"
    if "field larger than" in reason:
        return f"a field of more than {_LONGEST_FIELD:,} characters; is a double quote left open?"
    if "new-line character" in reason:
        return "a carriage return that ends no line; save the file with ordinary line ends"
    return f"not valid CSV ({reason}); inside double quotes a quotation mark is written twice"


def _tsv_cells(path: Path, wanted: Sequence[str]) -> _Cells:
    header: list[str] = []
    places: list[int] = []
    for number, line in numbered_lines(path):
        if not line and len(header) != 1:
            continue
        where = f"{path}:{number}"
        fields = line.split("\t")
        if not header:
            header = [name.strip() for name in fields]
            places = _places(header, wanted, where)
        elif len(fields) != len(header):
            raise InputError(
                f"{where}: {len(fields)} fields where the header has {len(header)}; TSV is read without quoting, "
                "so a text with tabs or line breaks needs CSV or JSON lines"
            )
        else:
            yield where, [fields[place] for place in places]


def _json_cells(path: Path, wanted: Sequence[str]) -> _Cells:
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            # Besides bad syntax: numbers of thousands of digits, brackets thousands deep.
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "too long a number or too deep"
            raise InputError(f"{where}: not valid JSON ({reason}); write one object a line") from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: a JSON {_JSON_NAMES[type(record)]}, not an object; write one object a line")
        for name in wanted:
            if name not in record:
                raise InputError(f"{where}: no field {name!r}; there are {', '.join(map(repr, record)) or 'none'}")
        yield where, [record[name] for name in wanted]


_JSON_NAMES = {list: "array", str: "string", int: "number", float: "number", bool: "true or false", type(None): "null"}


def _parquet_cells(path: Path, wanted: Sequence[str]) -> _Cells:
    arrow: Any = require("pyarrow", "tables")
    parquet: Any = require("pyarrow.parquet", "tables")
    number = 0
    try:
        # With a buffer size, a column is read in pieces instead of one row group at a time.
        with parquet.ParquetFile(path, buffer_size=1 << 20) as file:
            _places(file.schema_arrow.names, wanted, str(path))
            for batch in file.iter_batches(batch_size=1024, columns=list(dict.fromkeys(wanted))):
                # Else Arrow keeps some 40 MB of what earlier batches took.
                arrow.default_memory_pool().release_unused()
                for cells in zip(*(batch.column(name).to_pylist() for name in wanted), strict=True):
                    number += 1
                    yield f"{path}: row {number}", cells
    except (arrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: not a sound parquet file, seen after row {number} ({reason})") from None


_READERS: dict[str, Callable[[Path, Sequence[str]], _Cells]] = {
    ".csv": _csv_cells,
    ".tsv": _tsv_cells,
    ".jsonl": _json_cells,
    ".ndjson": _json_cells,
    ".json": _json_cells,
    ".parquet": _parquet_cells,
}


def load_table(
    path: str | Path,
    columns: Columns,
    *,
    task: Task | None = None,
    kind: Kind | None = None,
) -> tuple[Task, list[Example]]:
    """Read a whole table for training or scoring.

    Args:
        path: The table.
        columns: Its columns. Without a label column the examples are unlabelled, and ``task`` must be given.
        task: The task that the table belongs to, where it is known (dev data): its labels are the only ones.
            None: the task is derived from this table (training data), see :func:`derive_task`.
        kind: What the labels are, where ``task`` is None; None: ``single_label``. It is never guessed.

    Raises:
        InputError: As :func:`iter_rows` and :func:`derive_task`; or there are no rows, a labelled row has an empty
            text or no label, or a label is not known to the task; the message names file and line.
    """
    rows = list(iter_rows(path, columns))
    if not rows:
        raise InputError(f"{path}: there are no rows")
    if columns.label is not None:
        for row in rows:
            if not row.text.strip():
                raise InputError(f"{row.where}: column {columns.text!r} is empty; fill it or remove the row")
    labels = [(row.label, row.where) for row in rows]
    if task is None:
        if columns.label is None:
            raise InputError(f"{path}: training needs labels; name their column with --label-column")
        task = derive_task(
            labels,
            name=Path(path).name,
            kind=kind or "single_label",
            pair=columns.pair is not None,
        )
    elif task.pair != (columns.pair is not None):
        form = "pairs of texts; name the second column with" if task.pair else "single texts; leave out"
        raise InputError(f"{path}: {task.name} takes {form} --pair-column")
    return task, [
        Example(
            text=row.text,
            pair=row.pair,
            label=None if columns.label is None else encode_label(task, label, where),
        )
        for row, (label, where) in zip(rows, labels, strict=True)
    ]


METRICS: dict[Kind, tuple[str, ...]] = {
    # The first of each chooses the best checkpoint.
    "single_label": ("accuracy", "f1_macro"),
    "multi_label": ("f1_micro", "f1_macro", "accuracy"),
    "regression": ("pearson", "spearman", "mean_squared_error"),
}
"""Kind -> metrics of a user's task; the first chooses the best checkpoint."""

_LABEL_SEPARATOR = ";"


def derive_task(
    labels: Iterable[tuple[RawLabel, str]],
    *,
    name: str,
    kind: Kind = "single_label",
    pair: bool = False,
) -> Task:
    """Make a task from the labels of training data.

    Classes are sorted: as numbers where all are whole numbers, else by code point. The labels of a row (multi_label)
    are a list, or stand in one text with ``;`` between them.

    Args:
        labels: (label, where it stands) of each row.
        name: Name of the task, for messages.
        kind: What the labels are.
        pair: Whether an example is two texts.

    Raises:
        InputError: A label is missing, has the wrong form or is named twice in a row; there is only one class, or one
            value; or more than half of the rows have a class of their own, so that the labels look like numbers to
            predict.
    """
    primary_metric, metrics = METRICS[kind][0], METRICS[kind]
    if kind == "regression":
        values = [_value(label, where) for label, where in labels]
        if len(set(values)) < 2:
            raise InputError(f"{name}: every row has the value {values[0]:g}, so there is nothing to learn")
        return Task(name=name, kind=kind, metrics=metrics, primary_metric=primary_metric, pair=pair)
    names = [_class_names(label, where, kind) for label, where in labels]
    classes = {name for row in names for name in row}
    whole = all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in classes)
    ordered = sorted(classes, key=lambda name: (int(name) if whole else 0, name))
    if kind == "multi_label" and not classes:
        raise InputError(f"{name}: no row has a label, so there is nothing to learn")
    if kind == "single_label":
        if len(classes) < 2:
            raise InputError(f"{name}: every row has the label {ordered[0]!r}; training needs at least two classes")
        if len(classes) > max(2, len(names) / 2):
            raise InputError(
                f"{name}: {len(classes)} different labels in {len(names)} rows; "
                "to predict a number pass --regression, else check --label-column"
            )
    return Task(name=name, kind=kind, labels=tuple(ordered), metrics=metrics, primary_metric=primary_metric, pair=pair)


def encode_label(task: Task, label: RawLabel, where: str) -> Label:
    """Turn a row's label into the form that examples hold.

    Formats spell one label in several ways, ``True`` and ``true``, ``1.0`` and ``1``. So a label that is none of the
    task's to the letter also stands for the one that it equals, if there is exactly one.

    Args:
        task: Says the kind of label and its classes.
        label: The label as the table has it.
        where: Where it stands, for the message.

    Raises:
        InputError: The label is missing, has the wrong form, is not one of the task's, or is named twice in a row.
    """
    if task.kind == "regression":
        return _value(label, where)
    exact, equal = _label_indices(task.labels)
    indices = []
    for name in _class_names(label, where, task.kind):
        index = exact.get(name)
        if index is None:
            index = equal.get(_plain(name))
        if index is None:
            known = ", ".join(map(repr, task.labels[:10])) + (", ..." if len(task.labels) > 10 else "")
            raise InputError(f"{where}: label {name!r} is not one of those trained on: {known}")
        indices.append(index)
    if task.kind == "single_label":
        return indices[0]
    return tuple(int(index in indices) for index in range(len(task.labels)))


@lru_cache(maxsize=8)
def _label_indices(labels: tuple[str, ...]) -> tuple[Mapping[str, int], Mapping[str, int | None]]:
    """Name -> index, and plain form -> index, or None where several labels have that form."""
    equal: dict[str, int | None] = {}
    for index, name in enumerate(labels):
        equal[_plain(name)] = None if _plain(name) in equal else index
    return {name: index for index, name in enumerate(labels)}, equal


def _plain(name: str) -> str:
    """The one form of all spellings of a truth value, or of a decimal number; any other name as it is."""
    if name.lower() in ("true", "false"):
        return name.lower()
    # No leading zeros, which tell codes from numbers; and no float, which would round long numbers.
    number = re.fullmatch(r"([+-]?)(0|[1-9][0-9]*)(?:\.([0-9]+))?", name)
    if number is None:
        return name
    sign, whole, fraction = number.groups(default="")
    digits = f"{whole}.{fraction}".rstrip("0").rstrip(".") if fraction else whole
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def _class_names(label: RawLabel, where: str, kind: Kind) -> list[str]:
    """The names in a label: exactly one (single_label), or any number (multi_label), each once."""
    if kind == "single_label":
        if isinstance(label, _LISTS):
            raise InputError(f"{where}: the label is a list; to predict several labels at once pass --multi-label")
        return [_class_name(label, where)]
    if isinstance(label, str):
        names = [part.strip() for part in label.split(_LABEL_SEPARATOR) if part.strip()]
    else:
        names = [_class_name(part, where) for part in (label if isinstance(label, _LISTS) else [label])]
    for place, name in enumerate(names):
        # A row of 0 and 1, one for each label, would otherwise be learned as two labels called "0" and "1".
        if name in names[:place]:
            raise InputError(f"{where}: names the label {name!r} twice; list the names of the row's labels, each once")
    return names


def _class_name(label: Any, where: str) -> str:
    if isinstance(label, float) and label.is_integer():
        # A column of whole numbers with a gap somewhere comes out of pandas as floats.
        label = int(label)
    if isinstance(label, bool):
        # As JSON spells it. CSV files often have "True", which is found all the same, see encode_label.
        label = str(label).lower()
    if label is None or (isinstance(label, str) and not label.strip()) or label != label:
        raise InputError(f"{where}: the label is missing")
    if not isinstance(label, (str, int, float)):
        raise InputError(f"{where}: the label {label!r:.40} is neither text nor a number")
    return str(label).strip()


# A batch's sum of squared errors must stay within float32, whose largest number is 3.4e38.
_LARGEST_VALUE = 1e18


def _value(label: RawLabel, where: str) -> float:
    """A number to predict."""
    try:
        # Python's float() also reads "1_000".
        is_number = isinstance(label, (str, int, float)) and not isinstance(label, bool) and "_" not in str(label)
        value = float(label) if is_number else math.nan  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: the label {label!r:.40} is not a finite number, which regression needs")
    if abs(value) > _LARGEST_VALUE:
        raise InputError(f"{where}: the label {label!r:.40} is beyond ±1e18, too large to square in fp32; scale it")
    return value
