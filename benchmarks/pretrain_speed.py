"""Pretraining on masked tokens: tokens per second of a training step, beside transformers' SqueezeBERT and BERT-base.

Every contender is trained by the package's own loop: the same batches of full rows, number of masked tokens, loss,
clipping, optimizer (LAMB, as the paper trains), number format and dropout, from random weights of the same sizes. The
package's model scores the masked tokens only; transformers' modules score every token, as they are shipped, and the
masked ones are picked from the result. The first steps of each turn are not timed.

``one group`` is BERT, written with the package's layers: what grouping gains in the same stack. ``--modes`` adds
``torch.compile`` and, on a GPU, CUDA graphs, for every contender. Model FLOP utilisation counts what the model needs,
the scores of masked tokens only, for every contender alike; so work beyond that lowers it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from squeezebert.data.pretraining import PretrainingBatch, PretrainingSource
    from squeezebert.model.config import ModelConfig
    from squeezebert.tokenizer import Tokenizer

OURS, ONE_GROUP = "squeezebert", "squeezebert, one group"
SQUEEZEBERT, BERT = "transformers SqueezeBERT", "transformers BERT"
CONTENDERS = (OURS, ONE_GROUP, SQUEEZEBERT, BERT)
MODES = ("eager", "compiled", "CUDA graphs")
WARMUP_STEPS = 5
"""Steps at the start of a turn in which kernels are chosen, graphs recorded and memory is taken."""
DISTINCT_STEPS = 64
GROUPS = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")


class FullRows:
    """Batches of equal shape: full rows only, and the same number of masked tokens in each.

    Args:
        source: The rows; steps that hold a shorter one are left out.
        length: Tokens of a full row.
    """

    steps_per_epoch = DISTINCT_STEPS

    def __init__(self, source: PretrainingSource, length: int) -> None:
        self._source = source
        self._rows = np.arange(source.batch_size)
        full = (step for step in itertools.count() if all(each.width == length for each in source.groups(step)))
        self._steps = list(itertools.islice(full, DISTINCT_STEPS))
        # The counts of two steps differ by a token or two, which have no label in the longer one.
        self._masked = min(len(source.batch(step).masked_labels) for step in self._steps)

    def examples(self, step: int) -> np.ndarray:
        """Rows of a step."""
        return self._rows

    def batch(self, step: int, examples: np.ndarray) -> PretrainingBatch:
        """All rows of a step."""
        batch = self._source.batch(self._steps[step % DISTINCT_STEPS])
        batch.masked_positions = batch.masked_positions[: self._masked]
        batch.masked_labels = batch.masked_labels[: self._masked]
        return batch


def config_of(name: str, size: str, vocab_size: int, dropout: float) -> ModelConfig:
    """Sizes of a contender; transformers' BERT has those of ``one group``."""
    from squeezebert.model.config import SIZES

    config = SIZES[size].replace(
        vocab_size=vocab_size, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
    )
    return config.replace(**dict.fromkeys(GROUPS, 1)) if name in (ONE_GROUP, BERT) else config


def build_model(name: str, config: ModelConfig) -> nn.Module:
    """A contender with random weights, called as the package's masked language model is."""
    import torch

    torch.manual_seed(0)
    if name in (OURS, ONE_GROUP):
        from squeezebert.model.heads import SqueezeBertForMaskedLM

        return SqueezeBertForMaskedLM(config)
    import transformers

    from squeezebert.model.hf import config_to_published
    from squeezebert.model.squeezebert import ModelOutput

    kind = "SqueezeBert" if name == SQUEEZEBERT else "Bert"
    values = config_to_published(config, "masked_lm") | {"model_type": kind.lower()}
    theirs = getattr(transformers, f"{kind}ForMaskedLM")(getattr(transformers, f"{kind}Config").from_dict(values))

    class Peer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theirs = theirs

        def forward(self, input_ids: Any, attention_mask: Any, types: Any, *, masked_positions: Any) -> ModelOutput:
            logits_BTV = self.theirs(input_ids, attention_mask=attention_mask, token_type_ids=types).logits
            return ModelOutput(logits=logits_BTV.flatten(0, 1).index_select(0, masked_positions))

        def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
            """Each parameter once: the loop's states refuse tied copies."""
            return {name: parameter.detach() for name, parameter in self.named_parameters()}

    return Peer()


def build(contender: str, args: argparse.Namespace) -> Callable[[harness.Case], float]:
    """Seconds per token of a contender, ``name`` or ``name, mode``."""
    import torch

    from squeezebert.data.masking import Vocabulary
    from squeezebert.data.pretraining import PretrainingSource
    from squeezebert.data.shards import Corpus
    from squeezebert.tokenizer import Tokenizer
    from squeezebert.training.loop import LoopSettings, fit, make_accelerator
    from squeezebert.training.optimizer import build_optimizer
    from squeezebert.training.pretraining_loss import PretrainingLoss

    name, mode = split_mode(contender)
    accelerator = make_accelerator(args.device)
    tokenizer = Tokenizer.load(args.corpus)
    corpus = Corpus.open(args.corpus, "train")
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    model = build_model(name, config_of(name, args.size, padded_vocabulary(tokenizer), args.dropout))
    model.to(accelerator.device)
    if mode == "compiled":
        model.compile()
    elif mode == "CUDA graphs":
        model.compile(mode="reduce-overhead")
    rows = FullRows(
        PretrainingSource(
            corpus, vocabulary, length=args.length, batch_size=args.batch, seed=0, mlm_only=True, short_probability=0.0
        ),
        args.length,
    )

    def run(case: harness.Case) -> float:
        steps: int = case["steps"]
        total = WARMUP_STEPS + steps
        times: list[float] = []

        def learning_rate_at(step: int) -> float:  # asked for once a step, at its beginning
            if step == WARMUP_STEPS:
                times.append(now())
            return 1e-4

        def evaluate() -> tuple[float, dict[str, dict[str, float]]]:  # after the last step
            times.append(now())
            return 0.0, {"none": {}}

        def now() -> float:
            if accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter()

        with tempfile.TemporaryDirectory() as folder:
            fit(
                accelerator=accelerator,
                model=model,
                optimizer=build_optimizer(model, name="lamb", learning_rate=1e-4),
                learning_rate_at=learning_rate_at,
                source=rows,
                objective=PretrainingLoss(accelerator.device, mlm_only=True),
                evaluate=evaluate,
                keep_best=lambda evaluation: None,
                settings=LoopSettings(
                    total_steps=total,
                    evaluate_every=total,
                    save_every=total,
                    log_every=total,  # each look would wait for the device
                    seed=0,
                    precision=args.precision,
                ),
                folder=Path(folder),
            )
        accelerator.free_memory()
        elapsed = times[-1] - times[0]
        return float(elapsed / (steps * args.batch * args.length))

    return run


def padded_vocabulary(tokenizer: Tokenizer) -> int:
    """Tokens of the vocabulary, rounded up to a multiple of 64 as ``checkpoint.load`` does."""
    return -(-tokenizer.vocab_size // 64) * 64


def split_mode(contender: str) -> tuple[str, str]:
    """``name, compiled`` -> name and mode; without a mode: eager."""
    for mode in MODES[1:]:
        if contender.endswith(f", {mode}"):
            return contender.removesuffix(f", {mode}"), mode
    return contender, "eager"


def main() -> None:
    parser = harness.arguments(__doc__ or "")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that `squeezebert corpus build` wrote")
    parser.add_argument("--size", choices=["base", "small", "tiny"], default="base")
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a turn")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="default: eager; on a GPU all three")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    args = parser.parse_args()
    if args.worker:
        import torch

        torch.set_num_threads(args.threads)
        return harness.serve(build(args.worker, args))
    modes = args.modes or (MODES if args.device == "cuda" else MODES[:1])
    if args.device == "cpu" and "CUDA graphs" in modes:
        parser.error("--modes: CUDA graphs need --device cuda")
    names = [name if mode == "eager" else f"{name}, {mode}" for name in args.contenders for mode in modes]
    flags = [
        f"--{key}={getattr(args, key)}" for key in "corpus size length batch precision dropout device threads".split()
    ]
    workers = [harness.start_worker(__file__, name, flags, args.threads) for name in names]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    start = time.monotonic()
    for turn in range(args.rounds):
        for number, worker in enumerate(workers, start=1):
            seconds[worker.name].append(worker.run({"steps": args.steps}))
            done = turn * len(workers) + number
            left = (time.monotonic() - start) / done * (args.rounds * len(workers) - done)
            rate = 1 / seconds[worker.name][-1]
            print(
                f"turn {turn + 1} of {args.rounds}: {worker.name} {rate:,.0f} tokens/s, {left:.0f} s left", flush=True
            )
    for worker in workers:
        worker.close()
    report(args, seconds)
    return None


def report(args: argparse.Namespace, seconds: dict[str, list[float]]) -> None:
    """Write the table."""
    import torch

    from squeezebert.data.masking import Masking
    from squeezebert.tokenizer import Tokenizer
    from squeezebert.training.speed import peak_flops, training_flops

    torch.set_num_threads(args.threads)
    vocab_size = padded_vocabulary(Tokenizer.load(args.corpus))
    peak = peak_flops(torch.device(args.device), args.precision)
    rates = {name: 1 / statistics.median(times) for name, times in seconds.items()}
    utilisation = {}
    for name, rate in rates.items():
        config = config_of(split_mode(name)[0], args.size, vocab_size, args.dropout)
        row = training_flops(config, length=args.length, masking_rate=Masking().rate, mlm_only=True)
        utilisation[name] = rate * row / args.length / peak.flops
    reference = max(
        (name for name in rates if split_mode(name)[0] == OURS), key=rates.__getitem__, default=next(iter(rates))
    )
    rows = [
        [name, f"{rate:,.0f}", f"{rates[reference] / rate:.2f}x", f"{100 * utilisation[name]:.1f} %"]
        for name, rate in rates.items()
    ]
    table = harness.markdown_table(
        ["", "tokens/s (median)", f"{reference} is faster by", "model FLOP utilisation"], rows
    )
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} threads"
    body = (
        f"`{args.size}`, length {args.length}, batch {args.batch}, {args.precision}, dropout {args.dropout:g}, "
        f"{args.steps} timed steps a turn, {args.rounds} turns, {where}. Peak: {peak.flops / 1e12:.2f} TFLOP/s, "
        f"{peak.origin}.\n\n{table}"
    )
    data = {
        "tokens_per_second": rates,
        "model_flop_utilisation": utilisation,
        "peak": peak,
        "seconds_per_token": seconds,
    }
    packages = ["torch", "transformers", "accelerate"]
    what = f"pretrain_speed_{args.size}_{args.precision}_{args.device}"
    harness.write_results(what, f"Pretraining speed, {args.device}", body, data, packages)


if __name__ == "__main__":
    main()
