"""What a manifest says of the model that an engine runs; shared by the native engine and exported models."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from squeezebert import artifact
from squeezebert.errors import InputError
from squeezebert.model.config import PROBLEM_TYPES
from squeezebert.runtime.engines import kind_of

if TYPE_CHECKING:
    from squeezebert.data.tasks import Kind
    from squeezebert.tokenizer import Tokenizer


class Described:
    """A model with a manifest.

    Attributes:
        manifest: What is known of it.

    Raises:
        InputError: It predicts something of no known kind.
    """

    def __init__(self, manifest: artifact.Manifest, folder: Path) -> None:
        if manifest.problem_type not in (None, *PROBLEM_TYPES):
            raise InputError(
                f"{folder / artifact.CONFIG}: problem_type {manifest.problem_type!r} is none of "
                f"{', '.join(PROBLEM_TYPES)}"
            )
        self.manifest = manifest
        self._folder = folder

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The vocabulary beside the weights; None: there is none."""
        from squeezebert.tokenizer import Tokenizer

        return Tokenizer.find(self._folder)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs in order."""
        return self.manifest.labels

    @property
    def kind(self) -> Kind:
        """What the outputs stand for; where the model does not say: regression if there is one, else classes."""
        return kind_of(self.manifest.problem_type, len(self.manifest.labels))

    @property
    def max_length(self) -> int:
        """Longest sequence that the model takes, tokens."""
        return self.manifest.max_position_embeddings

    @property
    def default_length(self) -> int:
        """Length at which texts are cut unless told otherwise, tokens."""
        return self.manifest.max_length or self.max_length

    @property
    def pair(self) -> bool | None:
        """Whether an example is two texts; None: not known."""
        return self.manifest.pair
