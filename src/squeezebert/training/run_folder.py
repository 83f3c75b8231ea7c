"""The folder of a run: whether it may be used, what decides the run in it, and whether it fits on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from torch import nn

from squeezebert.errors import InputError
from squeezebert.files import read_json, write_json
from squeezebert.training.state import KEPT

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

SETTINGS = "settings.json"
"""What decides a run's outcome; written first."""
METRICS = "metrics.json"
"""A run's figures; written last, so it says that the run is finished."""
_LOCK = ".lock"
# Longer values, as the names of many labels, are cut in messages.
_SHOWN = 200


def check_folder(output: Path, *, resume: bool) -> bool:
    """Whether the run in ``output`` is finished already.

    Raises:
        InputError: The folder is in use, is no folder, cannot be written, or holds no run to be resumed.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; give a folder for the output")
    existing = _existing(output)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing}: cannot be written; choose another output folder")
    used = output.is_dir() and not all(path.name == _LOCK or _is_leftover(path) for path in output.iterdir())
    if used and not resume:
        raise InputError(f"{output}: holds files already; add --resume to go on with its run, or choose another folder")
    if used and not (output / SETTINGS).exists():
        raise InputError(f"{output}: holds files, but no run to resume; choose another folder")
    return (output / METRICS).exists()


@contextmanager
def occupy(output: Path, *, resume: bool, write: bool = True) -> Iterator[bool]:
    """Check that a run may use ``output``, and keep other runs out of it until this one ends, however it ends.

    Args:
        output: The run's folder, made where it is missing.
        resume: Whether to go on with the run in it.
        write: Whether this process is the one that writes; the others only check.

    Yields:
        Whether the run is finished already.

    Raises:
        InputError: As :func:`check_folder`; or another run is at work in the folder.
    """
    finished = check_folder(output, resume=resume)
    if fcntl is None or not write:
        yield finished
        return
    created = [folder for folder in (output, *output.parents) if not folder.exists()]
    output.mkdir(parents=True, exist_ok=True)
    try:
        with (output / _LOCK).open("a") as file:
            _lock(file, output)
            try:
                # A run may have ended here between the first look and the lock.
                yield check_folder(output, resume=resume)
            finally:
                (output / _LOCK).unlink(missing_ok=True)
    finally:
        for folder in created:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _lock(file: IO[str], output: Path) -> None:
    busy = InputError(f"{output}: another run is at work in this folder; wait for its end, or choose another folder")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    except OSError:
        return  # a file system without locks
    if os.fstat(file.fileno()).st_nlink == 0:
        # Its owner removed it after this process had opened it.
        raise busy


def check_space(output: Path, model: nn.Module, *, models: int, states: int = KEPT) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        output: The run's folder.
        model: What is trained; its optimizer keeps two moments.
        models: Copies of the model that the run leaves.
        states: Training states that stay on disk while it goes on.

    Raises:
        InputError: There is too little space; the message says how much is needed.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    # Weights and moments in each state; one more is there while it is being written.
    needed = weights * (3 * (states + 1) + models)
    existing = _existing(output)
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{existing}: {free / 1e6:,.0f} MB free, but the run needs {needed / 1e6:,.0f} MB; "
            "make room, or choose a folder on another disk"
        )


def begin(output: Path, settings: Mapping[str, Any], data: Mapping[str, str], *, write: bool = True) -> None:
    """Note what decides the outcome of a run; a resumed one must agree.

    Args:
        output: The run's folder.
        settings: Settings by name, ready for JSON.
        data: Data set -> fingerprint.
        write: Whether to write them down where the run is new.

    Raises:
        InputError: It does not agree; the message names the setting or the data set.
    """
    path = output / SETTINGS
    if not path.exists():
        if write:
            write_json(path, {"settings": settings, "data": data})
        return
    former = read_json(path)
    remedy = "or choose another output folder"
    for name in {**settings, **former["settings"]}:
        before, value = former["settings"].get(name), settings.get(name)
        if before != value:
            name, before, value = _innermost(name, before, value)
            raise InputError(
                f"{path}: {name} was {before!s:.{_SHOWN}} when the run began, and is {value!s:.{_SHOWN}} now; "
                f"set it back, {remedy}"
            )
    for name in {**data, **former["data"]}:
        if former["data"].get(name) != data.get(name):
            raise InputError(
                f"{path}: the {name} data (or their vocabulary) are not those that the run began with; "
                f"bring them back, {remedy}"
            )


def _innermost(name: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """Where two values of a setting first differ, such as ``phases.1.steps``, and what stands there."""
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = [(key, before.get(key), now.get(key)) for key in {**now, **before}]
    elif (
        # A list of plain values, such as labels, is told whole.
        isinstance(before, list)
        and isinstance(now, list)
        and len(before) == len(now)
        and all(isinstance(each, dict) for each in [*before, *now])
    ):
        pairs = [(index, *pair) for index, pair in enumerate(zip(before, now, strict=True))]
    for key, one, other in pairs:
        if one != other:
            return _innermost(f"{name}.{key}", one, other)
    return name, before, now


def remove_leftovers(output: Path) -> None:
    """Remove what a killed process was just writing, anywhere in a run; only who occupies the folder may do so."""
    for leftover in [path for path in output.rglob(".*") if _is_leftover(path)]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _is_leftover(path: Path) -> bool:
    """Whether a file or folder has a temporary name of :mod:`squeezebert.files`."""
    return any(path.match(pattern) for pattern in (".*.tmp", ".*.old", ".new-*"))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    return next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
