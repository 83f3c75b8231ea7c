"""What is known of an int8 model besides its arithmetic; the native engine and its NumPy double share it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezebert import artifact
from squeezebert.errors import InputError
from squeezebert.runtime.engines.described import Described

if TYPE_CHECKING:
    from squeezebert.export.native import Quantized
    from squeezebert.tokenizer import Tokenizer


@dataclass(frozen=True)
class Origin:
    """Where a model came from."""

    folder: Path
    """Of the artifact, or of the checkpoint that was quantised in memory."""
    checkpoint: bool
    stamp: tuple[Any, ...]
    """Sizes and times of its files when they were read."""

    @classmethod
    def of_artifact(cls, folder: str | Path) -> Origin:
        """Of an exported folder, as it is now."""
        files = [Path(folder) / name for name in (artifact.CONFIG, artifact.WEIGHTS)]
        return cls(Path(folder), checkpoint=False, stamp=_stamp([file for file in files if file.is_file()]))

    @classmethod
    def of_checkpoint(cls, folder: Path) -> Origin:
        """Of a checkpoint, as it is now."""
        from squeezebert.folder import weight_files

        return cls(folder, checkpoint=True, stamp=_stamp(weight_files(folder) if folder.is_dir() else []))

    def require_same(self) -> None:
        """Make sure that it is what it was.

        Raises:
            InputError: It is gone, or was changed.
        """
        now = Origin.of_checkpoint(self.folder) if self.checkpoint else Origin.of_artifact(self.folder)
        if now != self:
            raise InputError(
                f"{self.folder}: was changed since the model was loaded from it, so that it cannot be saved"
            )


def quantize_checkpoint(source: str | Path, head: str | None) -> tuple[Quantized, Origin]:
    """Load and quantise a checkpoint, to be run.

    Args:
        source: Folder or hub id.
        head: The head that is wanted; None: the one that it carries.

    Raises:
        InputError: ``source`` is a size name, or as :func:`squeezebert.export.native.quantize`.
        MissingExtraError: As there.
    """
    from squeezebert.export.native import quantize
    from squeezebert.folder import refuse_size

    refuse_size(source)
    model = quantize(source, head)
    folder = model.checkpoint.folder
    assert folder is not None  # only size names have none
    return model, Origin.of_checkpoint(folder)


class QuantizedEngine(Described):
    """An int8 model.

    Attributes:
        origin: Where it came from.
    """

    ragged = True

    def __init__(self, manifest: artifact.Manifest, origin: Origin) -> None:
        super().__init__(manifest, origin.folder)
        self.origin = origin

    def save(self, folder: str | Path, tokenizer: Tokenizer) -> None:
        """Write what the model was loaded from, with its tokenizer: the artifact, or the checkpoint in full precision.

        Raises:
            InputError: What it was loaded from is gone or was changed since, or ``folder`` is a file.
            OSError: ``folder`` cannot be written, or the disk is full.
        """
        from squeezebert import arrays
        from squeezebert.folder import ORDER, writing

        self.origin.require_same()
        source = self.origin.folder
        if self.origin.checkpoint:
            arrays.copy(source, Path(folder), tokenizer)
            return
        with writing(Path(folder)) as target:
            for name in (artifact.CONFIG, artifact.WEIGHTS, ORDER):
                if (source / name).exists():
                    shutil.copyfile(source / name, target / name)
            tokenizer.save(target)


def _stamp(files: Sequence[Path]) -> tuple[Any, ...]:
    """What tells one version of files from another."""
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
