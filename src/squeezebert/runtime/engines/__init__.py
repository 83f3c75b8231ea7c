"""Takes a batch, gives logits: one file per library that can run a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from squeezebert.data.collate import Batch
    from squeezebert.data.tasks import Kind
    from squeezebert.tokenizer import Tokenizer

__all__ = ["Engine", "kind_of"]

_KINDS: dict[str, Kind] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}


def kind_of(problem_type: str | None, outputs: int) -> Kind:
    """What a classifier's outputs stand for; where the model does not say: regression if there is one, else classes."""
    return _KINDS[problem_type or ("regression" if outputs == 1 else "single_label_classification")]


class Engine(Protocol):
    """A loaded model, ready to run."""

    @property
    def ragged(self) -> bool:
        """Whether sequences of a batch run each at its own length, so that like shapes gain nothing."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The vocabulary that the model was trained with; None: there is none beside its weights."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs in order."""

    @property
    def kind(self) -> Kind:
        """What the outputs stand for: "single_label", "multi_label" or "regression"."""

    @property
    def max_length(self) -> int:
        """Longest sequence that the model takes, tokens."""

    @property
    def default_length(self) -> int:
        """Length at which texts are cut unless told otherwise, tokens: that of finetuning, where it is known."""

    @property
    def pair(self) -> bool | None:
        """Whether an example is two texts; None: not known, as of published checkpoints."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Compute the logits of a batch. *Shape:* ``[B, K]``."""

    def save(self, folder: str | Path, tokenizer: Tokenizer) -> None:
        """Write the model, with its tokenizer, to a folder from which it can be loaded again."""
