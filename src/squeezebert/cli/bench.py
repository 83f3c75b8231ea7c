"""``squeezebert bench``: the package's engines and their peers, measured in one run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


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
    parser.add_argument("--size", default="base", help="size of SqueezeBERT: base or small (base)")
    parser.add_argument("--threads", type=int, metavar="N", help="cores of every contender (all that may be used)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="timed rounds (20)")
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER", help="folder of the official GLUE files")
    parser.add_argument(
        "--vocab", metavar="VOCAB", help="BERT's vocabulary, which sst2 and qnli need: file, folder or hub id"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="where the peers' models are kept (the user's cache)"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder for bench.md, bench.png and bench.json")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and save where asked; the exit status is 130 if interrupted, with what was measured kept."""
    from squeezebert.bench import report
    from squeezebert.bench.harness import shown
    from squeezebert.bench.run import Settings, bench
    from squeezebert.errors import InputError
    from squeezebert.host import usable_cpus

    settings = Settings(
        cases=tuple(args.cases),
        contenders=tuple(args.contenders),
        size=args.size,
        threads=usable_cpus() if args.threads is None else args.threads,
        rounds=args.rounds,
        data_dir=args.data_dir,
        vocab=args.vocab,
        cache=args.cache or _cache(),
    )
    if args.output is not None:
        if args.output.is_file():
            raise InputError(f"{args.output}: this is a file; --output names a folder")
        report.check_plot()
    results = bench(settings)
    command = shown(["squeezebert", *sys.argv[1:]])
    print(report.markdown(settings, results, command), end="")
    if args.output is not None:
        report.write(args.output, settings, results, command)
    return 130 if results.interrupted else 0


def _cache() -> Path:
    """The user's cache, as the XDG base directory specification places it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "squeezebert" / "bench"
