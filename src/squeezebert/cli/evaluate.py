"""``squeezebert evaluate``: a finetuned model's scores on labelled data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezebert.cli.predicting import add_predictor_arguments, load_predictor
from squeezebert.errors import InputError

if TYPE_CHECKING:
    from squeezebert.data.examples import Example
    from squeezebert.data.tasks import Task
    from squeezebert.runtime.engines import Engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--task", help="GLUE task to score on: sst2, mnli, ...")
    parser.add_argument(
        "--data-dir", type=Path, metavar="FOLDER", help="folder of the official GLUE files (fetched from the hub)"
    )
    parser.add_argument("--split", help="split of the task (validation)")
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="your own table instead: .csv, .tsv, .jsonl or .parquet"
    )
    parser.add_argument("--text-column", metavar="NAME", help="column of the text in --input (text)")
    parser.add_argument("--pair-column", metavar="NAME", help="column of the second text, for a model of pairs")
    parser.add_argument("--label-column", metavar="NAME", help="column of the label in --input (label)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder for metrics.json and predictions.jsonl")
    add_predictor_arguments(parser, engine="torch")


def run(args: argparse.Namespace) -> None:
    """Score, print, and save where asked."""
    _check(args)
    # GLUE is read before the model is loaded, so that a missing file is told at once; a table needs the model's labels.
    glue = _read_glue(args) if args.task else None

    from squeezebert.evaluation.evaluate import evaluate, save

    predictor = load_predictor(args)
    engine = predictor.engine
    task, examples, about = glue or _read_table(args, engine)
    evaluation = evaluate(task, examples, predictor.logits, kind=engine.kind, labels=engine.labels)
    print(f"{task.name}{' ' + about['split'] if 'split' in about else ''}: {about.pop('coverage')}")
    width = max(map(len, evaluation.scores))
    for name, value in evaluation.scores.items():
        print(f"{name:<{width}}  {value:.4f}")
    if args.output is not None:
        save(evaluation, task, examples, args.output, {"model": args.model, "task": task.name, **about})


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that do not belong together."""
    if (args.task is None) == (args.input is None):
        raise InputError("give either --task, for GLUE, or --input, for your own table")
    glue_only, table_only = ("data_dir", "split"), ("text_column", "pair_column", "label_column")
    for name in table_only if args.task else glue_only:
        if getattr(args, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} goes with {'--input' if args.task else '--task'}; leave it out")
    if args.output is not None and args.output.is_file():
        raise InputError(f"{args.output}: this is a file; --output names a folder")


def _read_glue(args: argparse.Namespace) -> tuple[Task, list[Example], dict[str, Any]]:
    """The task, its examples, and what is known of them."""
    from squeezebert.data.tasks import coverage, get_task, load_split

    task, split = get_task(args.task), args.split or "validation"
    labelled = [name for name, file in task.splits.items() if file.labelled]
    if split not in labelled and (split in task.splits or not labelled):
        remedy = f"score on --split {labelled[1]}" if labelled else "GLUE's server scores it (gluebenchmark.com)"
        raise InputError(f"{task.name}: its {split} split has no public labels; {remedy}")
    examples = load_split(task, split, args.data_dir)
    extent = coverage(task, split, len(examples))
    about = {
        "split": split, "rows": extent.rows, "official_rows": extent.official, "complete": extent.complete,
        "coverage": extent.describe(),
    }  # fmt: skip
    return task, examples, about


def _read_table(args: argparse.Namespace, engine: Engine) -> tuple[Task, list[Example], dict[str, Any]]:
    """The task that the model was trained for, the table's examples, and what is known of them."""
    from squeezebert.data.tables import Columns
    from squeezebert.evaluation.evaluate import read_table

    columns = Columns(args.text_column or "text", args.pair_column, args.label_column or "label")
    task, examples = read_table(args.input, columns, engine, args.model)
    about = {"input": str(args.input), "rows": len(examples), "coverage": f"{len(examples):,} rows"}
    return task, examples, about
