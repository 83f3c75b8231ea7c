"""Labels are matched by name, never by place.

Published MNLI models order their three labels in three ways, and a wrong order scores four per cent where the right one
scores ninety (huggingface/transformers#10401).
"""

from __future__ import annotations

from collections.abc import Sequence


def find_places(wanted: Sequence[str], among: Sequence[str]) -> list[int] | None:
    """Where each label stands among others.

    Upper and lower case, and spaces around a name, count only where they tell labels apart.

    Returns:
        Places in ``among``, in the order of ``wanted``; None: they are not the same labels.
    """
    for spelling in (str, _plain):
        places = {spelling(label): place for place, label in enumerate(among)}
        names = [spelling(label) for label in wanted]
        if len(places) == len(among) == len(names) and places.keys() == set(names):
            return [places[name] for name in names]
    return None


def _plain(label: str) -> str:
    return label.strip().casefold()
