"""Outputs appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from squeezebert.errors import InputError


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk: a rename must not outlive the content in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_target(path: str | Path) -> Path:
    """Follow links to the file that ``path`` stands for, and make sure that renaming onto it does no harm.

    Raises:
        InputError: It is a device or a pipe, which a rename would put a plain file in place of.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: a device or a pipe, not a file; choose another name to write to")
    return path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure.

    Raises:
        InputError: ``path`` is a device or a pipe.
        OSError: The folder cannot be written, or the disk is full; ``path`` keeps its former content.
    """
    path = check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on success it takes the place of ``path``, with all that it held.

    A new folder appears in one rename. One that exists is first renamed out of the way; where a kill comes just between
    the two renames, it stays beside, under a name with ``.old``.

    Raises:
        OSError: The folder cannot be written, or the disk is full; ``path`` keeps its former content.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    former = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if path.exists():
            path.rename(former)
        temporary.rename(path)
        _sync(path.parent)
        shutil.rmtree(former, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def staged_files(folder: str | Path, *, last: str) -> Iterator[Path]:
    """Give a temporary folder inside ``folder``, which exists; on success its files are renamed into ``folder``.

    Other files of ``folder`` stay. The file named ``last`` comes last, so that it vouches for the others.

    Raises:
        OSError: The folder cannot be written, or the disk is full; ``folder`` keeps its former content.
    """
    folder = Path(folder).resolve()
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        yield staging
        for file in sorted(staging.iterdir(), key=lambda file: (file.name == last, file.name)):
            _sync(file)
            file.replace(folder / file.name)
        _sync(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def safetensors_errors(path: str | Path) -> Iterator[None]:
    """Turn what safetensors says of a full disk into the system's own error, naming ``path``."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found.group(1)) if found else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from None


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline, atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is missing, not UTF-8 or not JSON; the message names it.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise InputError(f"{path}: JSON that cannot be read ({error})") from None
