"""The files of an artifact as they lie on the disk: their sizes and hashes, and whether they are what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from squeezebert.artifact import Manifest
from squeezebert.tokenizer import FILES as VOCABULARY

_CHUNK = 1 << 20  # bytes that are read at a time


def file_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    return sum(each.stat().st_size for each in _files(path))


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of its files one after the other, each behind its name and size."""
    found = hashlib.sha256()
    for file in _files(path):
        if file != path:
            found.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                found.update(chunk)
    return found.hexdigest()


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Hashes of some files of an artifact, for its manifest."""
    return {name: digest(folder / name) for name in names}


def vocabulary(folder: Path) -> list[str]:
    """Names of the files that decide which tokens a text becomes."""
    return [name for name in VOCABULARY if (folder / name).is_file()]


def altered(folder: Path, manifest: Manifest) -> list[str]:
    """Say which files of an artifact, companions and vocabulary too, are not as they were written."""
    found = []
    sizes = {**manifest.files, **manifest.companions}
    for name in (*sizes, *(name for name in manifest.sha256 if name not in sizes)):
        path, stored, size = folder / name, manifest.sha256.get(name), sizes.get(name)
        if name in VOCABULARY and not path.exists():
            continue  # a page has tokenizer.json alone, and no model can be read without any
        if not path.exists():
            found.append(f"files: {name} is missing")
        elif size is not None and file_bytes(path) != size:
            found.append(f"files: {name} has {file_bytes(path)} bytes, where the manifest says {size}")
        elif stored is not None and digest(path) != stored:
            found.append(f"files: {name} is not as it was written: its hash is not the manifest's")
    return found


def _files(path: Path) -> list[Path]:
    """The file itself, or all files in a folder."""
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
