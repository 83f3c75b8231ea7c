"""Predictions -> a file of them, JSON lines, CSV or TSV, that survives interruption.

While it grows the file is ``OUT.partial``, and ``OUT.partial.json`` says how many rows of it are safe. At the end it
is renamed to ``OUT``. A run that was broken off, kill -9 included, goes on from the last whole window of rows, and ends
with the bytes of an unbroken one; a hash of the texts tells whether they are still those that the rows were made from.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from squeezebert.errors import InputError
from squeezebert.files import check_target, read_json, write_json
from squeezebert.runtime import Prediction

Row = tuple[str, str | None]
"""A text, and the second text or None."""

FORMATS = (".jsonl", ".csv", ".tsv")
"""Suffixes of the files that can be written."""

# Past the sixth digit a probability depends on the company that a text had in its batch.
_DIGITS = 6


def to_json(row: int, prediction: Prediction) -> str:
    """One line of JSON for row number ``row``, without its line end."""
    record = {
        "row": row,
        "label": _rounded(prediction.label),
        "score": _rounded(prediction.score),
        "scores": {label: _rounded(score) for label, score in prediction.scores.items()},
    }
    return json.dumps(record, ensure_ascii=False)


def to_cells(row: int, prediction: Prediction) -> list[str]:
    """The cells of a table's row: number, label, score, and the score of each label. Several labels are ``a;b``."""
    label = ";".join(prediction.label) if isinstance(prediction.label, tuple) else _rounded(prediction.label)
    return [str(cell) for cell in (row, label, _rounded(prediction.score), *map(_rounded, prediction.scores.values()))]


def _rounded(value: Any) -> Any:
    return round(value, _DIGITS) if isinstance(value, float) else value


class PredictionFile:
    """A file of predictions in the making; use it as a context manager.

    Leaving the block without an error puts the file in its place; with one, the partial file stays.

    Args:
        path: The file to make; its suffix chooses the format.
        labels: Names of the scores, in order; empty for regression.
        window: Rows after which a run can go on; those of one window do not influence another's.
        settings: All that shapes the predictions; a run goes on only under the settings that it began with.
        resume: Go on with a partial file, where there is one.

    Attributes:
        rows: Rows written; at the start, those that need not be computed again (see :meth:`skip`).
        safe_rows: Rows of them that a run can go on after.
        partial: Where they are until the file is whole.

    Raises:
        InputError: The suffix is unknown, a partial file is there but ``resume`` is not given, or it cannot be
            continued.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        labels: tuple[str, ...],
        window: int,
        settings: Mapping[str, Any],
        resume: bool = False,
    ) -> None:
        self._path = check_target(path)
        check_format(self._path)
        self._suffix = self._path.suffix.lower()
        self.partial = self._path.with_name(f"{self._path.name}.partial")
        self._state = self._path.with_name(f"{self._path.name}.partial.json")
        self._window = window
        self._settings = dict(settings)
        self._texts = hashlib.sha256()
        self._safe_texts = ""
        self.rows = self.safe_rows = 0
        if self.partial.exists() and self._state.exists():
            if not resume:
                raise InputError(
                    f"{self.partial}: rows of an interrupted run; continue it with --resume, or remove the file and "
                    f"{self._state.name}"
                )
            self._file = self._continue()
        else:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.partial.open("w", encoding="utf-8", newline="")
            with self._naming_errors():
                if self._suffix != ".jsonl":
                    self._write_cells(["row", "label", "score", *(f"score_{label}" for label in labels)])
                self._save_state()

    def _continue(self) -> IO[str]:
        """Open the partial file and cut off what came after its last whole window."""
        state = read_json(self._state)
        for name, value in self._settings.items():
            began = state.get("settings", {}).get(name)
            if began != value:
                raise InputError(
                    f"{self.partial}: began with {name} {began!r}, not {value!r}; give the same, or remove the file "
                    f"and {self._state.name} to begin anew"
                )
        size = self.partial.stat().st_size if self.partial.exists() else 0
        if size < state["bytes"]:
            raise InputError(
                f"{self.partial}: {size} bytes where {self._state.name} counts {state['bytes']}; remove both to begin "
                "anew"
            )
        self.rows = self.safe_rows = state["rows"]
        self._safe_texts = state.get("texts_sha256", "")
        file = self.partial.open("r+", encoding="utf-8", newline="")
        file.truncate(state["bytes"])
        file.seek(state["bytes"])
        return file

    def skip(self, rows: Iterator[Row], source: str) -> None:
        """Take from ``rows`` those that need not be computed again.

        Args:
            rows: The input, from its first row.
            source: What the message calls it.

        Raises:
            InputError: They are fewer, or not those that the predictions were made from.
        """
        skipped = 0
        for row in itertools.islice(rows, self.rows):
            self._hash(row)
            skipped += 1
        remedy = f"give the same input, or remove {self.partial} and {self._state.name} to begin anew"
        if skipped < self.rows:
            raise InputError(f"{source}: {skipped} rows, but {self.partial} holds {self.rows}; {remedy}")
        if self.rows and self._texts.hexdigest() != self._safe_texts:
            raise InputError(f"{source}: its first {self.rows} rows are not those of the interrupted run; {remedy}")

    def _hash(self, row: Row) -> None:
        self._texts.update(json.dumps(row).encode())

    def write(self, row: Row, prediction: Prediction) -> None:
        """Add the next row's prediction.

        Raises:
            OSError: The disk is full, or the like; rows of windows that were whole before are safe.
        """
        with self._naming_errors():
            if self._suffix == ".jsonl":
                self._file.write(to_json(self.rows + 1, prediction) + "\n")
            else:
                self._write_cells(to_cells(self.rows + 1, prediction))
            self._hash(row)
            self.rows += 1
            if self.rows % self._window == 0:
                self._save_state()

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """Let an error in writing name the file, and leave nothing in memory that would fail again later."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self.partial)
            with suppress(OSError):
                self._file.close()
            raise

    def _write_cells(self, cells: list[str]) -> None:
        if self._suffix == ".csv":
            csv.writer(self._file, lineterminator="\n").writerow(cells)
        else:
            # TSV is not quoted here, as nowhere in this package: a tab inside a label becomes a space.
            self._file.write("\t".join(" ".join(cell.split()) for cell in cells) + "\n")

    def _save_state(self) -> None:
        self._flush()
        state = {
            "rows": self.rows,
            "bytes": self.partial.stat().st_size,
            "texts_sha256": self._texts.hexdigest(),
            "settings": self._settings,
        }
        write_json(self._state, state)
        self.safe_rows = self.rows

    def _flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            with self._naming_errors():
                self._flush()
                self._file.close()
            self.partial.replace(self._path)
            self._state.unlink()
            return
        with suppress(OSError):  # the disk may be full, which is then the error under way
            self._file.close()
        if self.rows == 0:
            self.partial.unlink(missing_ok=True)
            self._state.unlink(missing_ok=True)


def check_format(path: Path) -> None:
    """Make sure that ``path`` can be written.

    Raises:
        InputError: Its suffix is none of :data:`FORMATS`, or it is a folder.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: predictions are written to {', '.join(FORMATS)}; choose one of these suffixes")
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; give the file to write")
