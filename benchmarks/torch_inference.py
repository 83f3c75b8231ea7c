"""Latency of a classifier's forward pass through torch, beside transformers' SqueezeBERT and BERT-base."""

from __future__ import annotations

import time
from collections.abc import Callable

import harness
import torch

CASES = {
    "1x128": {"batch": 1, "tokens": 128},
    "1x32": {"batch": 1, "tokens": 32},
    "8x128": {"batch": 8, "tokens": 128},
}
CONTENDERS = ["squeezebert", "squeezebert, not packed", "transformers SqueezeBERT", "transformers BERT-base"]


def build(name: str) -> Callable[[harness.Case], float]:
    """A contender with random weights; the pass takes ids, mask and segments, as a server would give them."""
    torch.manual_seed(0)
    if name.startswith("squeezebert"):
        from squeezebert.model.config import ModelConfig
        from squeezebert.model.heads import SqueezeBertForSequenceClassification

        model: torch.nn.Module = SqueezeBertForSequenceClassification(ModelConfig())
    else:
        import transformers

        kind = "SqueezeBert" if "SqueezeBERT" in name else "Bert"
        config = getattr(transformers, f"{kind}Config")()
        model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    model.eval()
    if name == "squeezebert":  # as the package's own engine runs it
        from squeezebert.host import keep_freed_memory
        from squeezebert.model.squeezebert import pack_for_inference

        keep_freed_memory()
        pack_for_inference(model)

    @torch.inference_mode()
    def run(case: harness.Case) -> float:
        ids = torch.randint(1000, 30000, (case["batch"], case["tokens"]))
        mask, types = torch.ones_like(ids), torch.zeros_like(ids)
        start = time.perf_counter()
        model(ids, attention_mask=mask, token_type_ids=types)
        return time.perf_counter() - start

    return run


def main() -> None:
    args = harness.arguments(__doc__ or "").parse_args()
    if args.worker:
        torch.set_num_threads(args.threads)
        return harness.serve(build(args.worker))
    workers = [
        harness.start_worker(__file__, name, ["--threads", str(args.threads)], args.threads) for name in CONTENDERS
    ]
    seconds = harness.interleave(workers, CASES, args.rounds, warmup=5)
    for worker in workers:
        worker.close()
    table, medians = harness.median_table(seconds, "squeezebert", 1e3, "milliseconds")
    title = f"Inference through torch, fp32, {args.threads} threads"
    harness.write_results(
        "torch_inference", title, table, {"medians": medians, "seconds": seconds}, ["torch", "transformers"]
    )
    return None


if __name__ == "__main__":
    main()
