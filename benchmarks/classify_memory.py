"""Resident memory of ``squeezebert classify`` over a long file, sampled while it runs.

Rows are made up: mostly short, one in a hundred up to 600 words, so that every length of batch occurs. The model has
random weights; they do not matter here. Goal: constant to within 50 MB after the first tenth of the rows.

    python benchmarks/classify_memory.py --rows 1000000 --model tiny
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness import arguments, markdown_table, resident_mb, write_results

GOAL_MB = 50.0


class Sample(NamedTuple):
    seconds: float
    rows: int
    resident_mb: float


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file")
    parser.add_argument("--model", default="tiny", help="size of the model")
    parser.add_argument("--max-length", type=int, default=128, help="tokens kept of a row")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between samples")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="squeezebert-") as temporary:
        folder = Path(temporary)
        words = ["".join(random.Random(i).choices("bdfgklmnprstvaeiou", k=2 + i % 7)) for i in range(3000)]
        write_rows(folder / "in.csv", args.rows, words)
        save_model(folder / "model", args.model, words)
        samples = watch(folder, args.threads, args.max_length, args.every)
    settled = [sample for sample in samples if sample.rows >= args.rows / 10]
    grown = max(sample.resident_mb for sample in settled) - min(sample.resident_mb for sample in settled)
    seconds = samples[-1].seconds
    body = "\n\n".join(
        [
            f"{args.rows:,} rows, model `{args.model}`, at most {args.max_length} tokens, {args.threads} threads: "
            f"{seconds:,.0f} s, {args.rows / seconds:,.0f} rows/s, start included.",
            table(samples, args.rows),
            f"After the first tenth, highest less lowest: **{grown:.1f} MB** (goal: at most {GOAL_MB:.0f}).",
        ]
    )
    data = {"rows": args.rows, "model": args.model, "grown_mb": grown, "seconds": seconds, "samples": samples}
    write_results(f"classify_memory_{args.model}", "Memory of classify over a long file", body, data, ("torch",))


def write_rows(path: Path, rows: int, words: Sequence[str]) -> None:
    generator = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        for _ in range(rows):
            length = generator.randint(1, 40) if generator.random() < 0.99 else generator.randint(1, 600)
            writer.writerow([" ".join(generator.choices(words, k=length))])


def save_model(folder: Path, size: str, words: Sequence[str]) -> None:
    from squeezebert import checkpoint
    from squeezebert.tokenizer import Tokenizer

    Tokenizer.learn(list(words), vocab_size=2000, min_frequency=1).save(folder)
    loaded = checkpoint.load(
        size, vocab=folder, id2label={0: "negative", 1: "positive"}, problem_type="single_label_classification"
    )
    checkpoint.save(loaded.model, folder, tokenizer=loaded.tokenizer)


def watch(folder: Path, threads: int, max_length: int, every: float) -> list[Sample]:
    """Run the command on ``in.csv`` and note its memory until it ends."""
    output, state = folder / "out.jsonl", folder / "out.jsonl.partial.json"
    command = [sys.executable, "-m", "squeezebert", "classify", "--model", str(folder / "model")]
    command += ["--input", str(folder / "in.csv"), "--output", str(output)]
    start = time.monotonic()
    process = subprocess.Popen([*command, "--threads", str(threads), "--max-length", str(max_length)])
    samples = []
    while process.poll() is None:
        rows = json.loads(state.read_text())["rows"] if state.exists() else 0
        # None, where it has just ended.
        samples.append(Sample(time.monotonic() - start, rows, resident_mb(process.pid) or 0.0))
        time.sleep(every)
    if process.returncode:
        raise SystemExit(f"classify ended with status {process.returncode}")
    return samples


def table(samples: Sequence[Sample], rows: int) -> str:
    """Memory at each tenth of the rows."""
    lines = []
    for tenth in range(11):
        sample = min(samples, key=lambda each: abs(each.rows - tenth / 10 * rows))
        lines.append([f"{sample.rows:,}", f"{sample.seconds:,.0f}", f"{sample.resident_mb:.1f}"])
    return markdown_table(["rows done", "seconds", "resident MB"], lines)


if __name__ == "__main__":
    main()
