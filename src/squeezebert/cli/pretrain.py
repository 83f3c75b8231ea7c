"""``squeezebert pretrain``: a corpus and a recipe -> a pretrained model; ``pretrain evaluate`` scores one."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from squeezebert.errors import InputError, require
from squeezebert.training.recipes import load_recipe, recipe_names

_RUN = ("recipe", "size", "model", "output", "max_minutes", "resume", "teacher", "changes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of training and of ``pretrain evaluate RUN``."""
    parser.usage = (
        "squeezebert pretrain --corpus CORPUS --recipe RECIPE --output RUN [--size SIZE | --model MODEL]\n"
        "                            [--teacher TEACHER] [--max-minutes M] [--resume] [--device DEVICE]\n"
        "                            [--set KEY=VALUE ...]\n"
        "       squeezebert pretrain evaluate RUN --corpus CORPUS [--rows N] [--device DEVICE]"
    )
    parser.add_argument("action", nargs="?", choices=("evaluate",), help="score a run instead of training one")
    parser.add_argument("run_folder", metavar="RUN", nargs="?", type=Path, help="the run to evaluate")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that `squeezebert corpus build` wrote")
    parser.add_argument("--recipe", help=f"{', '.join(recipe_names())}, or a .toml file")
    parser.add_argument("--size", help="size of a model of random weights: base, small or tiny (small)")
    parser.add_argument(
        "--model", help="checkpoint to go on from instead, for text of another kind: a folder or hub id"
    )
    parser.add_argument("--output", metavar="RUN", type=Path, help="folder for the model and everything about the run")
    parser.add_argument("--max-minutes", metavar="M", type=float, help="stop with a saved state after so many minutes")
    parser.add_argument("--teacher", help="encoder to learn from, a folder or hub id, instead of masked tokens alone")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (auto)")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", dest="changes", nargs="+", action="extend",
        help="change the recipe: seed=1, phases.0.steps=1000, ...",
    )  # fmt: skip
    parser.add_argument("--rows", metavar="N", type=int, help="evaluate: rows of held-out text to score (all)")


def run(args: argparse.Namespace) -> None:
    """Pretrain or evaluate, and print the figures."""
    if args.action == "evaluate":
        _evaluate(args)
        return
    if args.rows is not None:
        raise InputError("--rows goes with pretrain evaluate; leave it out")
    if args.recipe is None or args.output is None:
        raise InputError("pretrain needs --recipe and --output")
    changes = args.changes or []
    recipe = load_recipe(args.recipe, changes)
    require("torch", "train")
    require("accelerate", "train")
    from squeezebert.training.pretrain import PretrainSettings, pretrain

    result = pretrain(
        PretrainSettings(
            corpus=args.corpus,
            recipe=recipe,
            size=_size(args),
            model=args.model,
            output=args.output,
            max_minutes=math.inf if args.max_minutes is None else args.max_minutes,
            resume=args.resume,
            teacher=args.teacher,
            device=args.device,
            command=tuple(_command(args)),
        )
    )
    if result is not None:
        print(result.describe())


def _command(args: argparse.Namespace) -> list[str]:
    words = ["squeezebert", "pretrain", "--corpus", str(args.corpus), "--recipe", args.recipe]
    size = _size(args)
    words += ["--size", size] if size is not None else []
    words += ["--model", args.model] if args.model is not None else []
    words += ["--output", str(args.output)]
    if args.teacher is not None:
        words += ["--teacher", args.teacher]
    if args.max_minutes is not None:
        words += ["--max-minutes", f"{args.max_minutes:g}"]
    if args.device != "auto":
        words += ["--device", args.device]
    return words + (["--set", *args.changes] if args.changes else [])


def _size(args: argparse.Namespace) -> str | None:
    return args.size or (None if args.model is not None else "small")


def _evaluate(args: argparse.Namespace) -> None:
    if args.run_folder is None:
        raise InputError("pretrain evaluate needs the folder of a run")
    for name in _RUN:
        if getattr(args, name):
            flag = "--set" if name == "changes" else f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} goes with training; leave it out of pretrain evaluate")
    if args.rows is not None and args.rows < 1:
        raise InputError(f"--rows must be at least 1, not {args.rows}")
    require("torch", "train")
    require("accelerate", "train")
    from squeezebert.training.pretrain import evaluate_run

    figures = evaluate_run(args.run_folder, args.corpus, rows=args.rows, device=args.device)["held_out"]
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:.4f}")
