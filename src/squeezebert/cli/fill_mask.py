"""``squeezebert fill-mask``: likely words for the gaps of a text."""

from __future__ import annotations

import argparse

from squeezebert.cli.predicting import add_engine_argument
from squeezebert.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("text", help='a text with [MASK] in it: "the capital of [MASK] is paris"')
    parser.add_argument(
        "--model", required=True, help="folder of a pretraining run, its hub id, or the folder of an exported one"
    )
    parser.add_argument("--top", metavar="K", type=int, default=5, help="guesses for each gap (5)")
    add_engine_argument(parser, default="auto")


def run(args: argparse.Namespace) -> None:
    """Guess, and print a line for each guess; an empty line divides the gaps."""
    if args.top < 1:
        raise InputError(f"--top must be at least 1, not {args.top}")
    from squeezebert.runtime.engines.choice import load_masked_lm
    from squeezebert.runtime.fill_mask import fill_mask

    gaps = fill_mask(load_masked_lm(args.model, engine=args.engine), args.text, top=args.top)
    print("\n\n".join("\n".join(f"{guess.probability:.4f}  {guess.token}" for guess in guesses) for guesses in gaps))
