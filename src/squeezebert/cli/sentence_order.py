"""``squeezebert sentence-order``: whether two passages stand in their order."""

from __future__ import annotations

import argparse

from squeezebert.errors import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("first", help="a sentence or passage")
    parser.add_argument("second", help="another one, next to it in the same document")
    parser.add_argument("--model", required=True, help="folder of a pretraining run, or a hub id")


def run(args: argparse.Namespace) -> None:
    """Print the probability of either order."""
    require("torch", "torch")
    from squeezebert.runtime.pretrained import in_order_probability, load_pretrained

    probability = in_order_probability(load_pretrained(args.model, "pretraining"), args.first, args.second)
    print(f"{probability:.4f}  in order\n{1 - probability:.4f}  swapped")
