"""The example: one labelled (or unlabelled) text or pair of texts."""

from __future__ import annotations

from dataclasses import dataclass

Label = int | float | tuple[int, ...]
"""Index of a class (single_label), a value (regression), or 0 and 1 for each class (multi_label)."""


@dataclass(frozen=True, slots=True)
class Example:
    """What a model learns from or is asked about, before tokenization."""

    text: str
    """The text, or the first of a pair."""
    pair: str | None = None
    """Second text of a pair; None: a single text."""
    label: Label | None = None
    """The answer, in the form that the task's kind asks for; None: unlabelled."""
