"""What is known of an int8 model besides its arithmetic; the native engine and its NumPy double share it."""

from __future__ import annotations

import shutil
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
    stamp: tuple[Any, ...] = ()
    """Sizes and times of a checkpoint's weights when they were read."""

    @classmethod
    def of_artifact(cls, folder: str | Path) -> Origin:
        """Of an exported folder."""
        return cls(Path(folder), checkpoint=False)


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
    return model, Origin(folder, checkpoint=True, stamp=_stamp(folder))


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
            InputError: The checkpoint is gone or was changed since, or ``folder`` is a file.
            OSError: ``folder`` cannot be written, or the disk is full.
        """
        from squeezebert import arrays
        from squeezebert.folder import writing

        source = self.origin.folder
        if self.origin.checkpoint:
            if self.origin.stamp != _stamp(source):
                raise InputError(
                    f"{source}: was changed since the model was loaded from it, so that it cannot be saved"
                )
            arrays.copy(source, Path(folder), tokenizer)
            return
        with writing(Path(folder)) as target:
            for name in (artifact.CONFIG, artifact.WEIGHTS):
                shutil.copyfile(source / name, target / name)
            tokenizer.save(target)


def _stamp(folder: Path) -> tuple[Any, ...]:
    """What tells one version of a checkpoint's weights from another; of a folder that is gone, nothing."""
    from squeezebert.folder import weight_files

    if not folder.is_dir():
        return ()
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in weight_files(folder))
