"""``squeezebert export``: a checkpoint -> an artifact, the form in which another program runs it."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

# format -> (module under squeezebert.export, one line of help). The module is imported only when its format is asked
# for; it offers export(source, output), which writes the artifact whole or not at all and raises InputError for a
# checkpoint that the format cannot hold, or an output that holds something else.
FORMATS: dict[str, tuple[str, str]] = {
    "native": ("native", "int8, a folder for this package's own engine"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    formats = "; ".join(f"{name}: {summary}" for name, (_, summary) in FORMATS.items())
    parser.add_argument("format", metavar="FORMAT", choices=FORMATS, help=formats)
    parser.add_argument("source", metavar="CHECKPOINT", help="folder or hub id of a checkpoint")
    parser.add_argument("output", metavar="OUT", type=Path, help="where to write; a former artifact is replaced")


def run(args: argparse.Namespace) -> None:
    """Export, and say how large it became."""
    module, _ = FORMATS[args.format]
    importlib.import_module(f"squeezebert.export.{module}").export(args.source, args.output)
    files = [args.output] if args.output.is_file() else [file for file in args.output.rglob("*") if file.is_file()]
    print(f"{args.output}: written, {args.format}, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
