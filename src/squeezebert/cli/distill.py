"""``squeezebert distill``: ``finetune`` with a teacher."""

from __future__ import annotations

import argparse

from squeezebert.cli import finetune


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``finetune``; here a teacher is a must."""
    finetune.add_arguments(parser, required=("teacher",))


run = finetune.run
