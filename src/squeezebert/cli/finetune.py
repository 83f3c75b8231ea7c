"""``squeezebert finetune``: a GLUE task or one's own table -> a finetuned model."""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from squeezebert.errors import require
from squeezebert.training.settings import FinetuneSettings, describe_fields


def add_arguments(parser: argparse.ArgumentParser, required: Sequence[str] = ()) -> None:
    """Declare a flag for each field of :class:`FinetuneSettings`; its sentence there is the help text.

    Args:
        parser: Takes the flags.
        required: Fields that must be given although they have defaults.
    """
    sentences = describe_fields(FinetuneSettings)
    types_by_name = get_type_hints(FinetuneSettings)
    for field in dataclasses.fields(FinetuneSettings):
        default = dataclasses.MISSING if field.name in required else field.default
        shown = _default_text(default)
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            help=sentences[field.name].rstrip(".").replace("%", "%%") + shown,
            **dict(_how(types_by_name[field.name], default)),
        )


def _how(kind: Any, default: Any) -> Iterator[tuple[str, Any]]:
    """Arguments of ``add_argument`` for a field of this type."""
    if kind is bool:
        yield "action", "store_true"
        return
    if default is dataclasses.MISSING:
        yield "required", True
    else:
        yield "default", default
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(part for part in get_args(kind) if part is not types.NoneType)
    if get_origin(kind) is Literal:
        yield "choices", get_args(kind)
    elif get_origin(kind) is tuple:
        yield "nargs", "+"
        yield "type", get_args(kind)[0]
    else:
        yield "type", kind
    metavar = {Path: "PATH", int: "N", float: "X"}.get(kind)
    if metavar:
        yield "metavar", metavar


def _default_text(default: Any) -> str:
    if default is None or default is False or default == () or default is dataclasses.MISSING:
        return ""
    return f" ({' '.join(map(str, default)) if isinstance(default, tuple) else default})"


def run(args: argparse.Namespace) -> None:
    """Finetune, and print the scores."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(FinetuneSettings)}
    settings = FinetuneSettings(**values)
    require("torch", "train")
    require("accelerate", "train")
    from squeezebert.training.finetune import finetune

    result = finetune(settings)
    if result is not None:
        print(result.describe())
