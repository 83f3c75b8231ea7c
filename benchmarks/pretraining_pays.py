"""Does pretraining pay: finetuning from a pretrained run beside finetuning from random weights, seed by seed.

    python benchmarks/pretraining_pays.py --run RUN --data-dir GLUE --output out/pays

Both starts get the same vocabulary, settings and seeds. Each finetuning is a `squeezebert finetune` of its own, with
one thread, several at a time; those that are finished are not repeated, and one that was interrupted goes on. Scores
are of the best evaluation on the dev set, as `finetune` keeps it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import markdown_table, shown, write_results

from squeezebert.files import read_json

SETTINGS = {
    "sst2": ["--epochs", "1", "--batch-size", "32", "--learning-rate", "3e-4", "--evaluate-every", "0.5"],
    "cola": ["--epochs", "3", "--batch-size", "32", "--learning-rate", "3e-4"],
    "mrpc": ["--epochs", "3", "--batch-size", "32", "--learning-rate", "3e-4"],
}
STARTS = ("pretrained", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="what `squeezebert pretrain` wrote")
    parser.add_argument("--size", default="small", help="size of the run's model, for random weights (small)")
    parser.add_argument("--data-dir", type=Path, required=True, help="official GLUE files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the finetuned models")
    parser.add_argument("--tasks", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="finetunings at a time (one a core)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    jobs = [(task, start, seed) for task in args.tasks for seed in args.seeds for start in STARTS]
    with ThreadPoolExecutor(args.jobs) as pool:
        scores = dict(zip(jobs, pool.map(lambda job: finetune(args, *job), jobs), strict=True))
    data = {
        task: {start: [scores[task, start, seed] for seed in args.seeds] for start in STARTS} for task in args.tasks
    }
    body = "\n\n".join([table(data, args.seeds), commands(args)])
    write_results("pretraining_pays", "Finetuning from a pretrained run and from random weights", body, data, ["torch"])


def finetune(args: argparse.Namespace, task: str, start: str, seed: int) -> dict[str, float]:
    """Scores on the dev set of one finetuned model."""
    output = args.output / f"{task}-{start}-{seed}"
    if not (output / "metrics.json").exists():
        resume = ["--resume"] if output.exists() else []
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with output.with_suffix(".log").open("a", encoding="utf-8") as log:
            command = [sys.executable, "-m", *command_line(args, task, start, seed, output), *resume]
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
    figures: dict[str, float] = read_json(output / "metrics.json")["seeds"][0]["figures"]["validation"]
    print(output.name, *(f"{name} {value:.4f}" for name, value in figures.items()), file=sys.stderr)
    return figures


def command_line(args: argparse.Namespace, task: str, start: str, seed: int | str, output: Path | str) -> list[str]:
    """Words of the command."""
    model = [str(args.run)] if start == "pretrained" else [f"random:{args.size}", "--vocab", str(args.run)]
    return [
        "squeezebert", "finetune", "--task", task, "--data-dir", str(args.data_dir), "--model", *model,
        *SETTINGS[task], "--seeds", str(seed), "--output", str(output),
    ]  # fmt: skip


def table(data: dict[str, dict[str, list[dict[str, float]]]], seeds: Sequence[int]) -> str:
    """A line for each task and metric: mean ± sd in points, and the differences seed by seed."""
    rows: list[list[Any]] = []
    for task, starts in data.items():
        for metric in [name for name in starts["random"][0] if name != "loss"]:
            values = {start: [100 * each[metric] for each in runs] for start, runs in starts.items()}
            pairs = zip(values["pretrained"], values["random"], strict=True)
            gains = [ours - theirs for ours, theirs in pairs]
            cells = [_mean(values[start]) for start in STARTS]
            rows.append([task, metric.replace("_", " "), *cells, ", ".join(f"{g:+.1f}" for g in gains)])
    return markdown_table(["task", "dev metric, points", *STARTS, f"gain of seeds {', '.join(map(str, seeds))}"], rows)


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def commands(args: argparse.Namespace) -> str:
    """What was run, for people."""
    lines = [
        shown(command_line(args, task, start, "SEED", "OUT")) for task in args.tasks for start in STARTS
    ]  # fmt: skip
    return "\n".join(["```", *lines, "```"])


if __name__ == "__main__":
    main()
