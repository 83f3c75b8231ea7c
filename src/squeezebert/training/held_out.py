"""How well a pretrained model guesses masked tokens and the order of passages in held-out text."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from squeezebert.data.pretraining import PretrainingSource
from squeezebert.training.losses import to_device
from squeezebert.training.pretraining_loss import forward
from squeezebert.training.progress import Figures


def score_held_out(
    model: nn.Module, source: PretrainingSource, accelerator: Accelerator, *, rows: int, precision: str
) -> Figures:
    """Score a model, which is in evaluation mode, by all processes together.

    Args:
        model: With the masked language model, and the sentence-order head unless the source is without pairs.
        source: Held-out text with ``short_probability=0`` and a fixed seed: the same rows and masks each time.
        accelerator: The processes.
        rows: Rows to score, rounded up to whole batches; at most an epoch of them.
        precision: Number format of activations, "fp32" or "bf16".

    Returns:
        ``held_out``: ``loss`` (sum of both mean losses), ``mlm_loss`` (nats a masked token), ``mlm_accuracy``,
        ``pseudo_perplexity`` (exp of the mean loss), and ``sentence_order_loss``, ``sentence_order_accuracy`` with its
        Wilson 95 % interval, ``..._low`` to ``..._high``.
    """
    device = accelerator.device
    steps = min(source.steps_per_epoch, -(-rows // source.batch_size))
    totals = torch.zeros(6, dtype=torch.float64, device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for step in range(accelerator.process_index, steps, accelerator.num_processes):
            batch = source.batch(step)
            output = forward(model, batch, device)
            sums = _sums(output.logits, to_device(batch.masked_labels, device))
            if batch.sentence_order_labels is not None:
                sums += _sums(output.sentence_order_logits, to_device(batch.sentence_order_labels, device))
            totals[: len(sums)] += torch.stack([each.double() for each in sums])
    if accelerator.num_processes > 1:
        totals = accelerator.reduce(totals)
    return {"held_out": _figures(totals.tolist())}


def _sums(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """Sum of the losses, number of right answers, number of questions."""
    loss = F.cross_entropy(logits.float(), labels, reduction="sum")
    return [loss, (logits.argmax(-1) == labels).sum(), torch.tensor(len(labels), device=labels.device)]


def _figures(totals: list[float]) -> dict[str, float]:
    loss, right, tokens, order_loss, order_right, pairs = totals
    mlm_loss = loss / max(tokens, 1)
    figures = {
        "loss": mlm_loss,
        "mlm_loss": mlm_loss,
        "mlm_accuracy": right / max(tokens, 1),
        "pseudo_perplexity": math.exp(min(mlm_loss, 100.0)),
    }
    if pairs:
        low, high = wilson_interval(int(order_right), int(pairs))
        figures |= {
            "loss": mlm_loss + order_loss / pairs,
            "sentence_order_loss": order_loss / pairs,
            "sentence_order_accuracy": order_right / pairs,
            "sentence_order_low": low,
            "sentence_order_high": high,
        }
    return figures


def wilson_interval(right: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Confidence interval of a proportion (Wilson 1927), by default of 95 %.

    Args:
        right: Successes.
        total: Trials, at least one.
        z: Quantile of the normal distribution.
    """
    share = right / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
