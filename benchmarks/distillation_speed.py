"""What teachers cost in finetuning: an epoch from kept answers beside a plain one, and the pass that gets them.

Training: `small` on SST-2 rows by the package's loop, once on the labels, once on a teacher's answers as the cache
keeps them (a memory-mapped file), as every epoch but the first does. The teacher's pass: a BERT of `transformers`
answers rows of SST-2, the longest first in batches of like length, as the package asks it, and as they come, padded to
the longest text of a batch or to 128 tokens. The teacher's weights are random; time does not depend on them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import finetune_speed
import harness

TRAINING = ["plain", "distilled"]
PASSES = ["longest first", "padded to the batch", "padded to 128"]
BATCH = 64
LABELS = ("negative", "positive")


def training(name: str, data_dir: Path, precision: str) -> Callable[[harness.Case], float]:
    """Seconds per example of finetuning, without a teacher or with kept answers."""
    import numpy as np
    import torch

    from squeezebert import checkpoint
    from squeezebert.data.tasks import get_task, load_split
    from squeezebert.training.distillation_loss import DistillationLoss
    from squeezebert.training.losses import ClassificationLoss
    from squeezebert.training.soft_targets import SoftTargets

    loaded = checkpoint.load("small", "sequence_classification", num_labels=len(LABELS))
    task, device = get_task("sst2"), torch.device("cpu")
    rows = load_split(task, "train", data_dir)
    if name == "plain":
        return finetune_speed.loop(loaded, rows, BATCH, ClassificationLoss(device), precision)
    kept = Path(tempfile.mkdtemp()) / "answers.npy"
    np.save(kept, np.random.default_rng(0).normal(size=(len(rows), len(LABELS))).astype(np.float32))
    answers = [np.load(kept, mmap_mode="r")]
    targets = SoftTargets(answers, [np.arange(len(LABELS))], task.kind, 1.0)
    loss = DistillationLoss(device, targets, alpha=0.9, temperature=1.0, labelled=len(rows))
    return finetune_speed.loop(loaded, rows, BATCH, loss, precision)


def teacher_pass(name: str, data_dir: Path, vocab: Path) -> Callable[[harness.Case], float]:
    """Seconds per text of a teacher's pass."""
    import torch
    import transformers

    from squeezebert.data.tasks import get_task, load_split
    from squeezebert.training.teacher import Teacher
    from squeezebert.training.teacher_cache import teacher_logits

    folder = Path(tempfile.mkdtemp())
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    tokenizer = transformers.BertTokenizerFast(vocab=str(vocab), do_lower_case=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    teacher = Teacher.open(str(folder))
    rows = load_split(get_task("sst2"), "train", data_dir)

    def ours(case: harness.Case) -> float:
        chosen = rows[: case["texts"]]
        with tempfile.TemporaryDirectory() as cache:
            start = time.perf_counter()
            teacher_logits(teacher, chosen, max_length=128, device=torch.device("cpu"), folder=Path(cache))
            return (time.perf_counter() - start) / len(chosen)

    @torch.inference_mode()
    def padded(case: harness.Case) -> float:
        texts = [row.text for row in rows[: case["texts"]]]
        padding = "max_length" if name == "padded to 128" else "longest"
        start = time.perf_counter()
        for first in range(0, len(texts), BATCH):
            batch = texts[first : first + BATCH]
            encoded = tokenizer(batch, padding=padding, truncation=True, max_length=128, return_tensors="pt")
            model(**encoded).logits.numpy()
        return (time.perf_counter() - start) / len(texts)

    return ours if name == "longest first" else padded


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("--data-dir", type=Path, required=True, help="GLUE folder")
    parser.add_argument("--vocab", type=Path, required=True, help="BERT's vocab.txt")
    parser.add_argument("--steps", type=int, default=40, help="timed steps of a turn of training")
    parser.add_argument("--texts", type=int, default=4096, help="texts of a teacher's pass")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of training")
    args = parser.parse_args()
    if args.worker:
        import torch

        torch.set_num_threads(args.threads)
        if args.worker in TRAINING:
            return harness.serve(training(args.worker, args.data_dir, args.precision))
        return harness.serve(teacher_pass(args.worker, args.data_dir, args.vocab))
    flags = ["--data-dir", str(args.data_dir), "--vocab", str(args.vocab), "--precision", args.precision]
    flags += ["--threads", str(args.threads)]
    names = [*TRAINING, *PASSES]
    workers = [harness.start_worker(__file__, name, flags, args.threads) for name in names]
    rates: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(args.rounds):
        for worker in workers:
            case = {"steps": args.steps, "turn": turn, "texts": args.texts}
            rates[worker.name].append(1 / worker.run(case))
            print(f"turn {turn + 1} of {args.rounds}: {worker.name} {rates[worker.name][-1]:.0f} texts/s")
    for worker in workers:
        worker.close()

    medians = {name: statistics.median(each) for name, each in rates.items()}
    tables = []
    for first, *others in (TRAINING, PASSES):
        rows = [[first, f"{medians[first]:.0f}", ""]]
        rows += [[name, f"{medians[name]:.0f}", f"{medians[first] / medians[name]:.2f}x"] for name in others]
        tables.append(harness.markdown_table(["", "texts/s (median)", f"time over that of {first}"], rows))
    body = (
        f"{args.rounds} turns, {args.threads} threads. Finetuning `small`, {args.precision}, batch {BATCH}, "
        f"{args.steps} steps a turn, on labels and on kept answers:\n\n{tables[0]}\n\nA teacher of MiniLM-L6's shape, "
        f"fp32, reads the first {args.texts:,} texts. Tokenization counts; for the first, the package's own pass, also "
        f"loading the teacher, a second tokenization for the lengths, and keeping the answers:\n\n{tables[1]}"
    )
    harness.write_results(
        f"distillation_speed_{args.precision}", "What a teacher costs in finetuning on SST-2", body,
        {"texts_per_second": rates}, ["torch", "transformers", "accelerate"],
    )  # fmt: skip
    return None


if __name__ == "__main__":
    main()
