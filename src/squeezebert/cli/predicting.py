"""What the verbs that run a finetuned model have in common: their flags, and loading it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squeezebert.runtime.predictor import Predictor


def add_engine_argument(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Declare ``--engine``."""
    parser.add_argument(
        "--engine",
        choices=("auto", "native", "torch"),
        default=default,
        help=f"native: int8 on the CPU; torch: fp32, exact; auto: native on a CPU, torch on a GPU ({default})",
    )


def add_predictor_arguments(parser: argparse.ArgumentParser, *, engine: str, model: str | None = None) -> None:
    """Declare the flags that :func:`load_predictor` reads.

    Args:
        parser: Takes the flags.
        engine: Default of ``--engine``.
        model: Default of ``--model``; None: it must be given.
    """
    known = "folder of a finetuned model, its hub id, or the folder of an exported one"
    parser.add_argument(
        "--model", required=model is None, default=model, help=known if model is None else f"{known} ({model})"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts run at a time (32)")
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="tokens kept of each text or pair (as many as in finetuning)"
    )
    add_engine_argument(parser, default=engine)
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (auto: a GPU where there is one)")
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use (all that may be used)")


def load_predictor(args: argparse.Namespace) -> Predictor:
    """Load the model that the flags name."""
    from squeezebert.runtime.predictor import Predictor

    return Predictor.load(
        args.model,
        batch_size=args.batch_size,
        max_length=args.max_length,
        engine=args.engine,
        device=args.device,
        threads=args.threads,
    )
