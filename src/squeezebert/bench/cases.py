"""What is measured: batches of a shape, and the texts of a GLUE task as they come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from squeezebert.errors import InputError

if TYPE_CHECKING:
    from squeezebert.bench.harness import Case

SHAPES = ("1x32", "1x128", "8x128", "1x512")
TASKS = ("sst2", "qnli")
LONGEST = 512
"""Tokens of the longest sequence that every contender takes."""
MOST_TEXTS = 1000
"""Texts of a task that are run; more do not change their number a second."""


def shapes(names: Sequence[str]) -> dict[str, Case]:
    """Requests of the cases that are shapes, ``ROWSxTOKENS``; the others must be tasks.

    Raises:
        InputError: A name is neither, or a shape is out of range.
    """
    found: dict[str, Case] = {}
    for name in names:
        match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", name)
        if match is None:
            if name not in TASKS:
                tasks = ", ".join(TASKS)
                raise InputError(f"--cases: {name!r} is neither rows x tokens, such as 8x128, nor one of {tasks}")
            continue
        batch, tokens = map(int, match.groups())
        if batch < 1 or not 1 <= tokens <= LONGEST:
            raise InputError(f"--cases: {name} needs at least 1 row, and 1 to {LONGEST} tokens")
        found[name] = {"batch": batch, "tokens": tokens}
    return found


def texts(task: str, data_dir: Path | None) -> list[tuple[str, str | None]]:
    """Texts of a task's development set; of many, every second, third and so on, so that at most 1,000 are left.

    Raises:
        InputError: The files are missing or damaged.
    """
    from squeezebert.data.tasks import get_task, load_split

    examples = load_split(get_task(task), "validation", data_dir)
    return [(each.text, each.pair) for each in examples[:: -(-len(examples) // MOST_TEXTS)]]
