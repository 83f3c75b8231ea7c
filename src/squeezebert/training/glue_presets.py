"""How each GLUE task is finetuned: TOML tables in which every value says where it comes from. No torch here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from squeezebert.data.tasks import GLUE
from squeezebert.errors import InputError
from squeezebert.training.settings import FinetuneSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Start = Literal["mnli", "encoder"]

NINE: tuple[str, ...] = tuple(name for name, task in GLUE.items() if "train" in task.splits)
"""The tasks that are learned; the diagnostics are only answered."""

DISTILLATION = ("alpha", "temperature", "hidden")
"""Settings that need a teacher."""

_SETTINGS = (
    "learning_rate",
    "dropout",
    "epochs",
    "batch_size",
    "warmup_proportion",
    "weight_decay",
    "max_length",
    *DISTILLATION,
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How one task is finetuned."""

    settings: dict[str, Any]
    """Fields of ``FinetuneSettings``."""
    start: Start
    """With bells and whistles: whether it starts from MNLI's student, or from the encoder."""
    source: str
    """Where the values come from."""


def preset_names() -> list[str]:
    """Names of the tables that come with the package."""
    return sorted(Path(file.name).stem for file in (resources.files("squeezebert.recipes") / "glue").iterdir())


def load_presets(name: str) -> dict[str, Preset]:
    """Read a table of presets.

    Args:
        name: One of :func:`preset_names`, or the path of a TOML file: a table for each task, on top of ``[defaults]``.

    Returns:
        Task -> preset, for all of :data:`NINE`.

    Raises:
        InputError: There is no such table, it is not TOML, it lacks a task or a source, names what is unknown, or has a
            value that finetuning refuses; the message names the task.
    """
    if name in preset_names():
        text = (resources.files("squeezebert.recipes") / "glue" / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{name}: not a text file in UTF-8; save it as UTF-8") from None
    else:
        raise InputError(f"presets {name!r} are unknown; use one of {', '.join(preset_names())}, or a .toml file")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name}: not valid TOML ({error})") from None
    for task in tables:
        if task not in (*NINE, "defaults", "description"):
            raise InputError(f"{name}: {task} is unknown; there are defaults and the tasks {', '.join(NINE)}")
    return {task: _preset(name, task, tables) for task in NINE}


def _preset(name: str, task: str, tables: dict[str, Any]) -> Preset:
    own, defaults = tables.get(task), tables.get("defaults", {})
    if not isinstance(own, dict) or not isinstance(defaults, dict):
        raise InputError(f"{name}: no table [{task}]; give one, if only to say where the defaults come from")
    values = {**defaults, **own}
    for key in values:
        if key not in (*_SETTINGS, "start", "source"):
            raise InputError(f"{name}: {task}.{key} is unknown; there are {', '.join(_SETTINGS)}, start and source")
    if not isinstance(own.get("source"), str):
        raise InputError(f"{name}: {task}.source is missing; say where the values come from")
    start = values.pop("start", "mnli")
    if start not in ("mnli", "encoder"):
        raise InputError(f"{name}: {task}.start must be mnli or encoder, not {start!r}")
    settings = {key: values[key] for key in _SETTINGS if key in values}
    try:
        FinetuneSettings(model="", output=Path(), task=task, teacher=("",), **settings)
    except InputError as error:
        raise InputError(f"{name}: {task}: {str(error).removeprefix('settings: ')}") from None
    sources = [own["source"], *([defaults["source"]] if isinstance(defaults.get("source"), str) else [])]
    return Preset(settings=settings, start=start, source="; ".join(sources))
