"""Takes texts and an engine that holds a model, gives predictions. Works where torch is absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Prediction"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one text."""

    label: str | float | tuple[str, ...]
    """The likeliest label; multi-label: every label of probability 0.5 or more, perhaps none; regression: the value."""
    score: float
    """Probability of the label; multi-label: of the likeliest label; regression: the value again."""
    scores: Mapping[str, float]
    """Probability of every label, in the model's order (multi-label: each on its own); empty for regression."""
