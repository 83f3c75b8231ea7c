"""``squeezebert bench``: the package's engines and their peers, or the export formats, measured in one run."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from squeezebert.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--cases", nargs="+", default=[], metavar="CASE",
        help="rows x tokens, sst2 or qnli (1x32 1x128 8x128 1x512 and, with data and vocabulary, both tasks)",
    )  # fmt: skip
    parser.add_argument(
        "--contenders", nargs="+", default=[], metavar="NAME",
        help="names, or patterns such as 'native*' and 'onnxruntime-int8-*' (everyone; a wrong name lists them)",
    )  # fmt: skip
    parser.add_argument("--size", help="size of SqueezeBERT: base or small (base)")
    parser.add_argument("--threads", type=int, metavar="N", help="cores of every contender (all that may be used)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="timed rounds (20)")
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER", help="folder of the official GLUE files")
    parser.add_argument(
        "--vocab", metavar="VOCAB", help="BERT's vocabulary, which sst2 and qnli need: file, folder or hub id"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="where the peers' models are kept (the user's cache)"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder for the report, its picture and its JSON")
    formats = parser.add_argument_group("instead, the formats of squeezebert export")
    formats.add_argument(
        "--formats", nargs="*", metavar="FORMAT", help="export --models, verify and clock them: these formats, or all"
    )
    formats.add_argument(
        "--models", nargs="+", default=[], metavar="CHECKPOINT", help="finetuned classifiers to export, folders"
    )
    formats.add_argument(
        "--forms", action="store_true", help="also every form of the grouped layers in every runtime, and BERT-base"
    )
    formats.add_argument(
        "--python", nargs="+", default=[], metavar="FORMAT=PYTHON",
        help="Python of the environment that has a format's packages (this one)",
    )  # fmt: skip
    formats.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the artifacts here, and use those that are")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and save where asked; the exit status is 130 if interrupted, with what was measured kept."""
    if args.formats is not None:
        return _formats(args)
    given = next((name for name in ("models", "forms", "python", "keep") if getattr(args, name)), None)
    if given is not None:
        raise InputError(f"--{given} goes with --formats; add that, or leave it out")

    from squeezebert.bench import report
    from squeezebert.bench.harness import say, shown
    from squeezebert.bench.run import Results, Settings, bench
    from squeezebert.host import usable_cpus

    settings = Settings(
        cases=tuple(args.cases),
        contenders=tuple(args.contenders),
        size=args.size or "base",
        threads=usable_cpus() if args.threads is None else args.threads,
        rounds=args.rounds,
        data_dir=args.data_dir,
        vocab=args.vocab,
        cache=args.cache or _cache(),
    )
    _check_output(args.output)
    command = shown(["squeezebert", *sys.argv[1:]])

    def keep(measured: Results) -> None:
        if args.output is None:
            return
        try:
            report.write_times(args.output, settings, replace(measured, interrupted=True), command)
        except OSError as error:
            say(f"{args.output}: the times until now could not be kept ({error.strerror}); measuring goes on")

    results = bench(settings, keep)
    print(report.markdown(settings, results, command), end="")
    if args.output is not None:
        report.write(args.output, settings, results, command)
    return 130 if results.interrupted else 0


def _formats(args: argparse.Namespace) -> int:
    """Measure the formats, and print and save as :func:`run` does."""
    from squeezebert.bench import format_report
    from squeezebert.bench.formats import FormatSettings, bench_formats
    from squeezebert.bench.harness import shown
    from squeezebert.host import usable_cpus

    given = next((name for name in ("contenders", "size", "data_dir", "vocab", "cache") if getattr(args, name)), None)
    if given is not None:
        raise InputError(f"--{given.replace('_', '-')} does not go with --formats; leave it out")
    pythons = dict(word.split("=", 1) if "=" in word else (word, "") for word in args.python)
    for format, python in pythons.items():
        if shutil.which(python) is None:
            raise InputError(f"--python {format}={python}: no such program; give FORMAT=PYTHON")
    settings = FormatSettings(
        formats=tuple(args.formats),
        models=tuple(args.models),
        forms=args.forms,
        pythons=pythons,
        cases=tuple(args.cases),
        threads=usable_cpus() if args.threads is None else args.threads,
        rounds=args.rounds,
        keep=args.keep,
    )
    _check_output(args.output)
    results = bench_formats(settings)
    # Where an environment lies is nobody's concern.
    words = sys.argv[1:]
    for python in pythons.values():
        words = [word.replace(f"={python}", "=PYTHON") for word in words]
    command = shown(["squeezebert", *words])
    print(format_report.markdown(settings, results, command), end="")
    if args.output is not None:
        format_report.write(args.output, settings, results, command)
    return 130 if results.interrupted else 0


def _check_output(output: Path | None) -> None:
    """Make sure, before anything is measured, that it can be saved."""
    if output is None:
        return
    if output.is_file():
        raise InputError(f"{output}: this is a file; --output names a folder")

    from squeezebert.bench.report import check_plot

    check_plot()


def _cache() -> Path:
    """The user's cache, as the XDG base directory specification places it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "squeezebert" / "bench"
