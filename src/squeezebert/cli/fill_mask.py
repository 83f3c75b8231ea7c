"""``squeezebert fill-mask``: likely words for the gaps of a text."""

from __future__ import annotations

import argparse

from squeezebert.errors import InputError, require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("text", help='a text with [MASK] in it: "the capital of [MASK] is paris"')
    parser.add_argument("--model", required=True, help="folder of a pretraining run, or a hub id")
    parser.add_argument("--top", metavar="K", type=int, default=5, help="guesses for each gap (5)")


def run(args: argparse.Namespace) -> None:
    """Guess, and print a line for each guess; an empty line divides the gaps."""
    if args.top < 1:
        raise InputError(f"--top must be at least 1, not {args.top}")
    require("torch", "torch")
    from squeezebert.runtime.pretrained import fill_mask, load_pretrained

    gaps = fill_mask(load_pretrained(args.model, "masked_lm"), args.text, top=args.top)
    print("\n\n".join("\n".join(f"{guess.probability:.4f}  {guess.token}" for guess in guesses) for guesses in gaps))
