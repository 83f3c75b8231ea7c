"""A small table of reviews, and settings that finetune a tiny model on it in a second."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_GOOD = ("gripping", "beautiful", "moving", "sharp", "warm")
_BAD = ("dull", "clumsy", "endless", "cheap", "flat")
_THINGS = ("film", "story", "ending", "cast", "camera work")


def write_reviews(path: Path, rows: int, offset: int = 0) -> Path:
    """Write a CSV of ``rows`` reviews of various lengths, labelled by their adjective."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(offset, offset + rows):
            good = number % 2 == 0
            adjective = (_GOOD if good else _BAD)[number // 2 % 5]
            filler = "and then it goes on " * (number % 4)
            text = f"a {adjective} {_THINGS[number // 3 % 5]}, {filler}in all"
            writer.writerow([text, "positive" if good else "negative"])
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Any]:
    """A function that makes settings: 44 training rows, so 6 steps of 8 an epoch, the last of them of 4 rows."""
    from squeezebert.training.settings import FinetuneSettings

    train, dev = write_reviews(tmp_path / "train.csv", 44), write_reviews(tmp_path / "dev.csv", 20, offset=100)

    def make(**changes: Any) -> FinetuneSettings:
        values: dict[str, Any] = {
            "model": "tiny",
            "train": train,
            "dev": dev,
            "output": tmp_path / "out",
            "epochs": 2,
            "batch_size": 8,
            "learning_rate": 2e-3,
            "device": "cpu",
        }
        return FinetuneSettings(**{**values, **changes})

    return make
