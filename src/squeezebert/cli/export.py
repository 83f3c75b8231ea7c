"""``squeezebert export``: a checkpoint -> an artifact, the form in which another program runs it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from squeezebert import artifact
from squeezebert.errors import InputError
from squeezebert.export.formats import CONVERTED, ENGINE, ENGINE_PRECISIONS
from squeezebert.runtime import models

if TYPE_CHECKING:
    from squeezebert.export.build import Dev
    from squeezebert.export.verify import Report

REFUSED = 3
"""Exit status where an artifact fails its checks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the formats, and the flags of each."""
    formats = parser.add_subparsers(dest="format", metavar="FORMAT", required=True)
    for name, summary in ENGINE.items():
        command = formats.add_parser(name, help=summary, description=summary)
        _add_common(command, ENGINE_PRECISIONS)
        _add_dev(command)
    for name, (precisions, summary) in CONVERTED.items():
        command = formats.add_parser(name, help=summary, description=f"Convert {summary}, and verify the result.")
        _add_common(command, precisions)
        _add_dev(command)
    verify = formats.add_parser(
        "verify", help="run an artifact's checks again, here", description="Run an artifact's checks again, here."
    )
    verify.add_argument(
        "artifact", metavar="ARTIFACT", help="folder made by squeezebert export, or a model of the package"
    )
    verify.add_argument(
        "--checkpoint",
        metavar="CHECKPOINT",
        help="what it was exported from, to be run by PyTorch anew (the outputs that the artifact brings)",
    )
    _add_dev(verify)


def _add_common(parser: argparse.ArgumentParser, precisions: tuple[str, ...]) -> None:
    """What every format takes."""
    parser.add_argument(
        "source", metavar="CHECKPOINT", help="folder or hub id of a checkpoint, or a model of the package"
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="where to write; a former artifact is replaced")
    parser.add_argument("--precision", choices=precisions, help=f"number format of the weights ({precisions[-1]})")
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="longest sequence that the artifact takes, tokens (the model's)"
    )
    parser.add_argument("--force", action="store_true", help="keep an artifact that fails its checks, marked")


def _add_dev(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dev", type=Path, metavar="FILE", help="labelled table to compare accuracy on: .csv, .tsv, .jsonl or .parquet"
    )
    parser.add_argument("--text-column", metavar="NAME", help="column of the text in --dev (text)")
    parser.add_argument("--pair-column", metavar="NAME", help="column of the second text, for a model of pairs")
    parser.add_argument("--label-column", metavar="NAME", help="column of the label in --dev (label)")
    parser.add_argument(
        "--max-accuracy-drop", type=float, metavar="POINTS", help="allowed loss on --dev, percentage points (0.3)"
    )


def run(args: argparse.Namespace) -> int:
    """Export or verify; the exit status is 3 where a check fails."""
    dev = _dev(args)

    from squeezebert.export import build
    from squeezebert.export.stored import file_bytes
    from squeezebert.export.verify import VerificationError

    if args.format == "verify":
        report = build.verify(models.find(args.artifact), checkpoint=args.checkpoint, dev=dev)
        _print(report)
        return _refuse(report, f"{args.artifact}: fails") if report.failed else 0
    try:
        found = _export(args, dev)
    except VerificationError as error:
        _print(error.report)
        return _refuse(error.report, f"{args.output}: not written")
    marked = ""
    if found is not None:
        _print(found)
        marked = f", although it fails: {'; '.join(found.failed)}" if found.failed else ""
    elif args.format == "web" and artifact.is_artifact(models.find(args.source)):
        failed = (artifact.read_manifest(models.find(args.source)).report or {}).get("failed")
        marked = f", although it fails: {'; '.join(failed)}" if failed else ""
    else:
        marked = f"; not verified: {build.why_unverified() or build.RANDOM_WEIGHTS}"
    print(f"{args.output}: written, {args.format}, {file_bytes(args.output) / 1e6:.1f} MB{marked}")
    return 0


def _export(args: argparse.Namespace, dev: Dev | None) -> Report | None:
    from squeezebert.export import build, web

    if args.format == "native":
        return build.export_native(args.source, args.output, max_length=args.max_length, dev=dev, force=args.force)
    if args.format == "web":
        source = models.find(args.source)
        return web.export(source, args.output, max_length=args.max_length, dev=dev, force=args.force)
    return build.export(
        args.format,
        args.source,
        args.output,
        precision=args.precision,
        max_length=args.max_length,
        dev=dev,
        force=args.force,
    )


def _dev(args: argparse.Namespace) -> Dev | None:
    """The labelled table that the flags name."""
    flags = ("text_column", "pair_column", "label_column", "max_accuracy_drop")
    if getattr(args, "dev", None) is None:
        given = next((name for name in flags if getattr(args, name, None) is not None), None)
        if given is not None:
            raise InputError(f"--{given.replace('_', '-')} goes with --dev; leave it out, or give the table")
        return None
    if not args.dev.is_file():
        raise InputError(f"{args.dev}: no such file")
    if args.max_accuracy_drop is not None and not args.max_accuracy_drop >= 0:
        raise InputError(f"--max-accuracy-drop {args.max_accuracy_drop}: must be 0 or more percentage points")

    from squeezebert.data.tables import Columns
    from squeezebert.export.build import Dev

    columns = Columns(args.text_column or "text", args.pair_column, args.label_column or "label")
    return Dev(args.dev, columns) if args.max_accuracy_drop is None else Dev(args.dev, columns, args.max_accuracy_drop)


def _print(report: Report) -> None:
    for line in report.describe():
        print(line)


def _refuse(report: Report, what: str) -> int:
    """Say which checks failed."""
    print(f"squeezebert: {what}: {'; '.join(report.failed)}", file=sys.stderr)
    return REFUSED
