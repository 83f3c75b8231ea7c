"""``squeezebert model``: describe a model, or rewrite a checkpoint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezebert.errors import InputError, require

if TYPE_CHECKING:
    from squeezebert.checkpoint import Loaded

_TOKENS = 128
_CALIBRATION_ROWS = 600  # of MNLI's dev set: enough for any model above chance, and a minute's work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands and their flags."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    info = commands.add_parser("info", help="parameters and multiply-adds of each layer, and what the checkpoint holds")
    info.add_argument("model", metavar="MODEL", help="folder, hub id, or size name (base, small, tiny)")
    info.add_argument("--tokens", type=int, help=f"sequence length that multiply-adds are counted for ({_TOKENS})")
    info.add_argument("--head", help="count with this head (the one in the checkpoint; for a size name: encoder)")
    info.add_argument("--json", action="store_true", help="print JSON")
    convert = commands.add_parser(
        "convert", help="rewrite any published layout, or a BERT, as safetensors that transformers reads"
    )
    convert.add_argument("source", metavar="IN", help="folder or hub id")
    convert.add_argument("output", metavar="OUT", type=Path, help="folder to write")
    convert.add_argument("--dtype", choices=("fp32", "fp16"), default="fp32", help="number format to write (fp32)")
    convert.add_argument(
        "--calibrate-labels",
        action="store_true",
        help="find the order of an MNLI classifier's labels from pairs with known answers, and store their names",
    )
    convert.add_argument(
        "--data-dir", type=Path, help="GLUE folder whose MNLI dev set is used for that (45 built-in pairs)"
    )


def run(args: argparse.Namespace) -> None:
    """Do what was asked."""
    require("torch", "torch")
    if args.action == "info":
        _info(args)
    else:
        _convert(args)


def _info(args: argparse.Namespace) -> None:
    from squeezebert import checkpoint
    from squeezebert.model.heads import HEADS

    if args.head is not None and args.head not in HEADS:
        raise InputError(f"--head {args.head}: unknown; use one of {', '.join(HEADS)}")
    head = args.head or checkpoint.find_head(args.model)
    loaded = checkpoint.load(args.model, head, require_head=False)
    longest = loaded.config.max_position_embeddings
    tokens = min(_TOKENS, longest) if args.tokens is None else args.tokens
    if not 1 <= tokens <= longest:
        raise InputError(f"--tokens {tokens}: must lie in 1..{longest}, the model's longest sequence")
    facts = _facts(loaded, head)
    rows = _rows(loaded, head, tokens)
    if args.json:
        print(json.dumps({**facts, "tokens": tokens, "cost": rows}, indent=2, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else value
        print(f"{name:<{width}}  {text or '-'}")
    print()
    print(_table(rows, tokens))


def _facts(loaded: Loaded, head: str) -> dict[str, Any]:
    """What is known of a model besides its cost."""
    report, config, tokenizer = loaded.report, loaded.config, loaded.tokenizer
    labelled = head in ("sequence_classification", "token_classification")
    return {
        "source": report.source,
        "weights": "random" if report.random else report.dtype,
        "head": report.head,
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
        "vocabulary": "none" if tokenizer is None else f"{tokenizer.vocab_size} tokens, {config.vocab_size} rows",
        "labels": list(config.labels) if labelled else [],
    }


def _rows(loaded: Loaded, head: str, tokens: int) -> list[dict[str, Any]]:
    from squeezebert.model import cost

    costs = cost.table(loaded.config, tokens, head)
    return [row._asdict() for row in [*costs, cost.total(costs)]]


def _table(rows: list[dict[str, Any]], tokens: int) -> str:
    """Aligned columns; a layer's parts are indented, since the row of all layers counts them."""
    heads = ("part", "parameters", f"multiply-adds, {tokens} tokens")
    cells = [
        (row["name"].replace("layer: ", "  "), f"{row['parameters']:,}", f"{row['multiply_adds']:,}") for row in rows
    ]
    widths = [max(len(line[place]) for line in [heads, *cells]) for place in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {parameters:>{widths[1]}}  {products:>{widths[2]}}"
        for name, parameters, products in [heads, *cells]
    ]
    flop = 2 * rows[-1]["multiply_adds"]
    return "\n".join([*lines, "", f"{flop / 1e9:.2f} GFLOP for a sequence of {tokens} tokens (2 per multiply-add)"])


def _convert(args: argparse.Namespace) -> None:
    from squeezebert import bert, checkpoint

    if args.data_dir is not None and not args.calibrate_labels:
        raise InputError("--data-dir is for --calibrate-labels; give both or neither")
    if not checkpoint.is_size(args.source) and bert.is_bert(checkpoint.resolve(args.source)):
        if args.calibrate_labels or args.dtype != "fp32":
            raise InputError(f"{args.source}: a BERT is written in fp32 with its own labels; convert the result again")
        print(bert.convert(args.source, args.output).describe())
        print(f"{args.output}: written, a SqueezeBERT of one group")
        return
    labels = _calibrate(args) if args.calibrate_labels else None
    report = checkpoint.convert(args.source, args.output, dtype=args.dtype, labels=labels)
    print(report.describe())
    print(f"{args.output}: written, {args.dtype}")


def _calibrate(args: argparse.Namespace) -> tuple[str, ...]:
    """Find the label order, and say how sure it is."""
    from squeezebert import checkpoint
    from squeezebert.data.tasks import get_task, load_split
    from squeezebert.evaluation.label_order import Pair, built_in_pairs, calibrate_label_order, score_pairs

    loaded = checkpoint.load(args.source)
    if args.data_dir is None:
        pairs = built_in_pairs()
    else:
        task = get_task("mnli")
        examples = load_split(task, "validation", args.data_dir)[:_CALIBRATION_ROWS]
        pairs = [
            Pair(each.text, each.pair or "", task.labels[each.label])
            for each in examples
            if isinstance(each.label, int)
        ]
    found = calibrate_label_order(score_pairs(loaded, pairs), [pair.label for pair in pairs])
    print(
        f"labels: {', '.join(found.labels)} ({found.accuracy:.0%} of {len(pairs)} pairs right; "
        f"the next best order: {found.runner_up:.0%})"
    )
    return found.labels
