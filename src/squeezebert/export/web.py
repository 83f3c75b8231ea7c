"""Checkpoint -> a folder that any static host serves: the page that runs a classifier in the browser, and its model.

The page (:data:`PAGE`) is built from ``web/`` by ``web/build.sh``; ``model/`` beside it is an artifact of the native
engine, which the page reads as it is.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from squeezebert import artifact
from squeezebert.errors import InputError
from squeezebert.export.build import export_native
from squeezebert.export.stored import altered
from squeezebert.files import atomic_folder

if TYPE_CHECKING:
    from squeezebert.export.build import Dev
    from squeezebert.export.verify import Report

PAGE = Path(__file__).resolve().parents[1] / "web"
"""The built page, its scripts and the engine's WebAssembly modules."""
MODEL = artifact.PAGE_MODEL
"""Folder of the model, below the page."""
MODEL_FILES = (artifact.CONFIG, "tokenizer.json", artifact.WEIGHTS)
"""What the page reads of a model."""
_KEPT = (*MODEL_FILES, artifact.GOLDEN)
"""The page never fetches the golden outputs; with them, the model can be verified where the page lies."""


def export(
    source: str | Path,
    folder: str | Path,
    *,
    max_length: int | None = None,
    dev: Dev | None = None,
    force: bool = False,
) -> Report | None:
    """Write a classifier and the page that runs it; ``folder`` appears whole or not at all.

    Args:
        source: Folder or hub id of a checkpoint, or the folder of a model exported as native.
        folder: Where to write; a page written before is replaced.
        max_length: Longest sequence that the model takes, tokens; None: the checkpoint's.
        dev: Labelled data to score it on.
        force: Keep a model that fails its checks; its manifest says which.

    Returns:
        What verification found; None: the model was not verified here.

    Raises:
        InputError: The model cannot be read, is not as it was exported, is no classifier or has no vocabulary;
            ``max_length`` is out of range; it or ``dev`` goes with a model that is exported already; or ``folder``
            holds something else.
        VerificationError: As :func:`squeezebert.export.build.export_native`.
        MissingExtraError: As :func:`squeezebert.export.build.export_native`.
        OSError: ``folder`` cannot be written, or the disk is full.
    """
    folder = Path(folder)
    if folder.is_dir():
        others = {each.name for each in folder.iterdir()} - {each.name for each in PAGE.iterdir()} - {MODEL}
        if others or ((folder / MODEL).exists() and not artifact.is_artifact(folder / MODEL)):
            lost = min(others, default=MODEL)
            raise InputError(f"{folder}: holds other files, such as {lost}, which would be lost; give a new folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder to write to")
    with atomic_folder(folder) as target:
        shutil.copytree(PAGE, target, dirs_exist_ok=True)
        model, report = target / MODEL, None
        if artifact.is_artifact(source):
            if max_length is not None:
                raise InputError(f"{source}: is exported already, up to its own length; give --max-length a checkpoint")
            if dev is not None:
                raise InputError(f"{source}: is exported already; score it with squeezebert evaluate")
            found = altered(Path(source), artifact.read_manifest(source))
            if found:
                raise InputError(f"{source}: {found[0]}; export the checkpoint again")
            model.mkdir()
            for name in _KEPT:
                if (Path(source) / name).is_file():
                    shutil.copyfile(Path(source) / name, model / name)
        else:
            report = export_native(source, model, max_length=max_length, dev=dev, force=force)
            for file in model.iterdir():
                if file.name not in _KEPT:
                    file.unlink()
        check_model(model, source)
    return report


def check_model(folder: str | Path, source: str | Path) -> None:
    """Make sure that the page can run a model.

    Args:
        folder: The model's.
        source: What messages call it.

    Raises:
        InputError: It cannot.
    """
    manifest = artifact.read_manifest(folder)
    if f"squeezebert-{manifest.format}" != artifact.FORMAT:
        raise InputError(f"{source}: exported as {manifest.format}, but the page runs the native format; export that")
    if manifest.head != "sequence_classification":
        raise InputError(f"{source}: its head is {manifest.head}, but the page labels texts; give a classifier")
    missing = [name for name in MODEL_FILES if not (Path(folder) / name).is_file()]
    if missing:
        raise InputError(f"{source}: has no {' and no '.join(missing)}, which the page needs; put it there")
