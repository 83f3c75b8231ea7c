"""An exported model in any format: the manifest's facts around a session, the runtime's own way to compute a batch."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from squeezebert import artifact
from squeezebert.errors import InputError
from squeezebert.host import usable_cpus
from squeezebert.runtime.engines.described import Described

if TYPE_CHECKING:
    from squeezebert.data.collate import Batch
    from squeezebert.tokenizer import Tokenizer

Arrays = list[NDArray[np.float32]]

SESSIONS = ("onnx", "openvino", "executorch", "litert")
"""Formats that run here; each has a module of its name beside this one, with ``load(folder, manifest, threads)``."""


class Session(Protocol):
    """A model inside its runtime."""

    ragged: bool
    """Whether rows are computed one by one, each at its own length."""

    def run(self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], types_BT: NDArray[np.int64]) -> Arrays:
        """Compute a batch that is padded at the end.

        Args:
            ids_BT: Token ids.
            mask_BT: 1 for a token, 0 for padding.
            types_BT: Segment of each token.

        Returns:
            The head's outputs in the order of :data:`squeezebert.artifact.OUTPUTS`; those of tokens are
            ``[B, T, ...]``, with any values at padding.
        """


class ExportedEngine(Described):
    """An exported model, ready to run."""

    def __init__(self, folder: str | Path, manifest: artifact.Manifest, session: Session) -> None:
        super().__init__(manifest, Path(folder))
        self._session = session

    @classmethod
    def load(cls, folder: str | Path, *, threads: int | None = None) -> ExportedEngine:
        """Load an exported folder.

        Args:
            folder: Made by ``squeezebert export``.
            threads: Cores to use; None: those that this process may use.

        Raises:
            InputError: The folder cannot be read, ``threads`` is not positive, or nothing runs the format here.
            MissingExtraError: The format's runtime is not installed.
        """
        manifest = artifact.read_manifest(folder)
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}")
        if manifest.format not in SESSIONS:
            raise InputError(f"{folder}: nothing here runs {manifest.format}; {', '.join(SESSIONS)} can be run")
        for name in manifest.files:
            if not (Path(folder) / name).exists():
                raise InputError(f"{folder}: {name} is missing; export the checkpoint again")
        module = importlib.import_module(f"squeezebert.runtime.engines.{manifest.format}")
        return cls(folder, manifest, module.load(Path(folder), manifest, threads or usable_cpus()))

    @property
    def ragged(self) -> bool:
        """Whether sequences of a batch run each at its own length."""
        return self._session.ragged

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the logits of a batch. *Shape:* ``[B, K]``.

        Raises:
            InputError: The model does not classify texts, or has not as many outputs as labels.
        """
        if self.manifest.head != "sequence_classification":
            raise InputError(f"{self._folder}: has the head {self.manifest.head}, which does not classify texts")
        logits = self.outputs(batch.input_ids, batch.attention_mask, batch.token_type_ids)["logits"]
        labels = len(self.manifest.labels)
        if logits.shape[1] != labels:
            raise InputError(
                f"{self._folder}: the model has {logits.shape[1]} outputs, but {artifact.CONFIG} names {labels} "
                "labels; export the checkpoint again"
            )
        return logits

    def outputs(
        self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], types_BT: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float32]]:
        """Compute every output of a batch that is padded at the end, by name (:data:`squeezebert.artifact.OUTPUTS`)."""
        return dict(
            zip(artifact.OUTPUTS[self.manifest.head], self._session.run(ids_BT, mask_BT, types_BT), strict=True)
        )

    def save(self, folder: str | Path, tokenizer: Tokenizer) -> None:
        """Copy the artifact to a folder.

        Args:
            folder: Where to write.
            tokenizer: The artifact's vocabulary.

        Raises:
            InputError: ``folder`` is a file, or holds something else than an artifact.
            OSError: ``folder`` cannot be written, or the disk is full.
        """
        from squeezebert.files import atomic_folder

        artifact.check_target(folder)
        with atomic_folder(folder) as target:
            shutil.copytree(self._folder, target, dirs_exist_ok=True)
            tokenizer.save(target)


def run_rows(
    run_row: Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], Arrays],
    ids_BT: NDArray[np.int64],
    mask_BT: NDArray[np.int64],
    types_BT: NDArray[np.int64],
    lengths: Sequence[int] = (),
) -> Arrays:
    """Run a batch row by row, for graphs whose batch is fixed at 1.

    A row goes in without its padding; where the graph takes certain lengths only, padded to the next of them.

    Args:
        run_row: Computes ``[1, T]``.
        ids_BT: As :meth:`Session.run`.
        mask_BT: Likewise.
        types_BT: Likewise.
        lengths: Lengths that ``run_row`` takes, tokens, ascending; empty: any.

    Returns:
        As :meth:`Session.run`, zeros at padding.
    """
    outputs: Arrays = []
    for row, tokens in enumerate(mask_BT.sum(axis=1).tolist()):
        width = next((length for length in lengths if length >= tokens), tokens)
        inputs = [np.zeros((1, width), np.int64) for _ in range(3)]
        for padded, given in zip(inputs, (ids_BT, mask_BT, types_BT), strict=True):
            padded[0, :tokens] = given[row, :tokens]
        for place, result in enumerate(run_row(*inputs)):
            per_token = result.ndim == 3
            if row == 0:
                shape = (*ids_BT.shape, result.shape[2]) if per_token else (len(ids_BT), result.shape[1])
                outputs.append(np.zeros(shape, np.float32))
            if per_token:
                outputs[place][row, :tokens] = result[0, :tokens]
            else:
                outputs[place][row] = result[0]
    return outputs
