"""What the verbs that run a finetuned model have in common: their flags, and loading it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squeezebert.runtime.predictor import Predictor


def add_predictor_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that :func:`load_predictor` reads."""
    parser.add_argument("--model", required=True, help="folder of a finetuned model, or its hub id")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts run at a time (32)")
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="tokens kept of each text or pair (as many as in finetuning)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (auto: a GPU where there is one)")
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use (all that may be used)")


def load_predictor(args: argparse.Namespace) -> Predictor:
    """Load the model that the flags name."""
    from squeezebert.runtime.predictor import Predictor

    return Predictor.load(
        args.model, batch_size=args.batch_size, max_length=args.max_length, device=args.device, threads=args.threads
    )
