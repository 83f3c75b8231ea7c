"""``squeezebert vocab``: learn a WordPiece vocabulary from text files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from squeezebert.lines import numbered_lines
from squeezebert.tokenizer import Tokenizer


class _Lines:
    """Every line of some files, to be read as often as one likes."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __iter__(self) -> Iterator[str]:
        for file in self._files:
            for _, line in numbered_lines(file):
                yield line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    summary = "learn a vocabulary; the same text always gives the same one"
    learn = commands.add_parser("learn", help=summary, description=summary[0].upper() + summary[1:] + ".")
    learn.add_argument("files", metavar="FILES", type=Path, nargs="+", help="UTF-8 text files, plain, .gz or .zst")
    learn.add_argument(
        "--output", metavar="FOLDER", type=Path, required=True, help="where to put tokenizer.json and vocab.txt"
    )
    learn.add_argument(
        "--vocab-size", metavar="N", type=int, default=30522, help="most tokens to have (default: %(default)s)"
    )
    learn.add_argument(
        "--min-frequency",
        metavar="M",
        type=int,
        default=2,
        help="least number of times that two tokens must meet to become one (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Learn and save."""
    tokenizer = Tokenizer.learn(_Lines(args.files), vocab_size=args.vocab_size, min_frequency=args.min_frequency)
    tokenizer.save(args.output)
    print(f"learned {tokenizer.vocab_size} tokens -> {args.output}")
