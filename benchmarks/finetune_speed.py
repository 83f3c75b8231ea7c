"""Finetuning on SST-2 rows as they come, batch 16: examples per second beside transformers' own Trainer.

Every contender trains the same classifier task for the same number of steps, from random weights of the full size, with
AdamW, dropout 0.1, gradient clipping and its own batching: ours the package's loop, the peers' transformers' Trainer
with dynamic padding. The first steps of each turn are not timed. A turn's examples are counted, and its time is divided
by them, since the last batch of an epoch may be smaller.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness

CONTENDERS = ["squeezebert", "transformers SqueezeBERT", "transformers BERT-base"]
BATCH = 16
WARMUP_STEPS = 4


def ours(data_dir: Path, vocab: Path, precision: str) -> Callable[[harness.Case], float]:
    """Seconds per example of the package's training loop; a turn goes on where the last one ended."""
    import torch

    from squeezebert import checkpoint
    from squeezebert.data.tasks import get_task, load_split
    from squeezebert.training.losses import ClassificationLoss

    loaded = checkpoint.load("base", "sequence_classification", vocab=vocab, num_labels=2)
    rows = load_split(get_task("sst2"), "train", data_dir)
    return loop(loaded, rows, BATCH, ClassificationLoss(torch.device("cpu")), precision)


def loop(loaded: Any, rows: Any, batch_size: int, objective: Any, precision: str) -> Callable[[harness.Case], float]:
    """Seconds per example of the package's training loop on any rows and objective."""
    from squeezebert.training.batches import EncodedExamples, EpochBatches
    from squeezebert.training.loop import LoopSettings, fit, make_accelerator
    from squeezebert.training.optimizer import build_optimizer

    assert loaded.tokenizer is not None
    examples = EncodedExamples(rows, loaded.tokenizer, 128)
    accelerator = make_accelerator("cpu")

    def run(case: harness.Case) -> float:
        total = WARMUP_STEPS + case["steps"]
        times: list[float] = []
        batches = EpochBatches(examples, batch_size, seed=case["turn"])
        folder = Path(tempfile.mkdtemp())

        def learning_rate_at(step: int) -> float:
            times.append(time.perf_counter())  # asked for once a step, at its beginning
            return 5e-5

        def evaluate() -> tuple[float, dict[str, dict[str, float]]]:
            times.append(time.perf_counter())  # after the last step
            return 0.0, {"none": {}}

        fit(
            accelerator=accelerator,
            model=loaded.model,
            optimizer=build_optimizer(loaded.model, learning_rate=5e-5, weight_decay=0.01),
            learning_rate_at=learning_rate_at,
            source=batches,
            objective=objective,
            evaluate=evaluate,
            keep_best=lambda evaluation: None,
            settings=LoopSettings(
                total_steps=total,
                evaluate_every=total,
                save_every=total,
                seed=0,
                precision=precision,  # type: ignore[arg-type]
            ),
            folder=folder,
        )
        shutil.rmtree(folder)
        accelerator.free_memory()
        counted = sum(len(batches.examples(step)) for step in range(WARMUP_STEPS, total))
        return (times[-1] - times[WARMUP_STEPS]) / counted

    return run


def theirs(name: str, data_dir: Path, vocab: Path, precision: str) -> Callable[[harness.Case], float]:
    """Seconds per example of transformers' Trainer."""
    import transformers

    from squeezebert.data.tasks import get_task, load_split

    transformers.utils.logging.disable_progress_bar()
    kind = "SqueezeBert" if "SqueezeBERT" in name else "Bert"
    config = getattr(transformers, f"{kind}Config")(num_labels=2)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    tokenizer = transformers.BertTokenizerFast(vocab=str(vocab), do_lower_case=True)
    rows = load_split(get_task("sst2"), "train", data_dir)
    encoded = tokenizer([row.text for row in rows], truncation=True, max_length=128)
    keys = ("input_ids", "token_type_ids", "attention_mask")
    examples = [{**{key: encoded[key][i] for key in keys}, "labels": rows[i].label} for i in range(len(rows))]

    class Clock(transformers.TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_begin(self, *_: object, **__: object) -> None:
            self.times.append(time.perf_counter())

        def on_step_end(self, *_: object, **__: object) -> None:
            self.end = time.perf_counter()

    def run(case: harness.Case) -> float:
        clock = Clock()
        settings = transformers.TrainingArguments(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, max_steps=WARMUP_STEPS + case["steps"],
            learning_rate=5e-5, weight_decay=0.01, seed=case["turn"], save_strategy="no", report_to=[], use_cpu=True,
            disable_tqdm=True, logging_strategy="no", bf16=precision == "bf16",
        )  # fmt: skip
        collator = transformers.DataCollatorWithPadding(tokenizer)
        trainer = transformers.Trainer(
            model, settings, data_collator=collator, train_dataset=examples, callbacks=[clock]
        )
        trainer.train()
        shutil.rmtree(settings.output_dir)
        return (clock.end - clock.times[WARMUP_STEPS]) / (BATCH * case["steps"])

    return run


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("--data-dir", type=Path, required=True, help="GLUE folder")
    parser.add_argument("--vocab", type=Path, required=True, help="BERT's vocab.txt")
    parser.add_argument("--steps", type=int, default=40, help="timed steps of a turn")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    args = parser.parse_args()
    if args.worker:
        import torch

        torch.set_num_threads(args.threads)
        build = ours if args.worker == "squeezebert" else lambda *rest: theirs(args.worker, *rest)
        return harness.serve(build(args.data_dir, args.vocab, args.precision))
    flags = ["--data-dir", str(args.data_dir), "--vocab", str(args.vocab), "--precision", args.precision]
    flags += ["--threads", str(args.threads)]
    workers = [harness.start_worker(__file__, name, flags, args.threads) for name in CONTENDERS]
    seconds: dict[str, dict[str, list[float]]] = {name: {"s/example": []} for name in CONTENDERS}
    for turn in range(args.rounds):
        for worker in workers:
            seconds[worker.name]["s/example"].append(worker.run({"steps": args.steps, "turn": turn}))
            rate = 1 / seconds[worker.name]["s/example"][-1]
            print(f"turn {turn + 1} of {args.rounds}: {worker.name} {rate:.1f} examples/s")
    for worker in workers:
        worker.close()

    rates = {name: statistics.median(1 / each for each in by["s/example"]) for name, by in seconds.items()}
    rows = [[name, f"{rate:.1f}", f"{rates['squeezebert'] / rate:.2f}x"] for name, rate in rates.items()]
    table = harness.markdown_table(["", "examples/s (median)", "squeezebert is faster by"], rows)
    body = (
        f"`base` size (BERT-base for the last), batch {BATCH}, {args.steps} timed steps a turn, {args.rounds} turns, "
        f"{args.precision}, {args.threads} threads.\n\n{table}"
    )
    packages = ["torch", "transformers", "accelerate"]
    title = f"Finetuning speed on SST-2, {args.precision}"
    harness.write_results(
        f"finetune_speed_{args.precision}", title, body, {"rates": rates, "seconds": seconds}, packages
    )
    return None


if __name__ == "__main__":
    main()
