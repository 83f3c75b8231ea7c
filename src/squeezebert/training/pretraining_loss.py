"""What pretraining minimises: masked tokens plus sentence order, each averaged over the global batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from squeezebert.data.pretraining import PretrainingBatch
from squeezebert.training.losses import to_device


class PretrainingLoss:
    """Cross-entropy of the masked tokens, and of the passages' order, in nats.

    Args:
        device: Where the model is.
        mlm_only: Masked tokens alone.
        sentence_order_weight: What the passages' order is multiplied with.
    """

    def __init__(self, device: torch.device, *, mlm_only: bool = False, sentence_order_weight: float = 1.0) -> None:
        self._device = device
        self._order_weight = sentence_order_weight
        self.names: tuple[str, ...] = ("mlm_loss",) if mlm_only else ("mlm_loss", "sentence_order_loss")

    def count(self, batch: PretrainingBatch) -> tuple[float, ...]:
        """Number of masked tokens, and of pairs."""
        order = batch.sentence_order_labels
        return (len(batch.masked_labels),) if order is None else (len(batch.masked_labels), len(order))

    def tokens(self, batch: PretrainingBatch) -> int:
        """Number of tokens without padding."""
        return batch.tokens

    def __call__(self, model: nn.Module, batch: PretrainingBatch) -> Tensor:
        """Sums of the losses, times their weights. *Shape:* ``[terms]``."""
        output = forward(model, batch, self._device)
        terms = [summed_cross_entropy(output.logits, batch.masked_labels, self._device)]
        if batch.sentence_order_labels is not None:
            order = summed_cross_entropy(output.sentence_order_logits, batch.sentence_order_labels, self._device)
            terms.append(self._order_weight * order)
        return torch.stack(terms)


def forward(model: nn.Module, batch: PretrainingBatch, device: torch.device) -> Any:
    """Run a model on a batch of arrays; it scores the masked tokens only. The output is its ``ModelOutput``."""
    return model(
        to_device(batch.input_ids, device),
        None if batch.attention_mask is None else to_device(batch.attention_mask, device),
        to_device(batch.token_type_ids, device),
        masked_positions=to_device(batch.masked_positions, device),
        **({} if batch.token_indices is None else {"token_indices": to_device(batch.token_indices, device)}),
    )


def summed_cross_entropy(logits: Tensor, labels: NDArray[np.int64], device: torch.device) -> Tensor:
    """Sum of the cross-entropies of ``[N, K]`` scores and ``[N]`` labels, in nats. Scalar."""
    target = to_device(labels, device)
    if logits.device.type == "cpu":
        total: Tensor = _CrossEntropy.apply(logits, target)  # type: ignore[no-untyped-call]
        return total
    return F.cross_entropy(logits.float(), target, reduction="sum")


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy summed over rows, a few rows at a time.

    The scores of a batch's masked tokens are its largest tensor by far. torch's own loss goes through memory with it
    seven times, and in fp32; here each block stays in the cache, and the gradient has the scores' number format.
    """

    ROWS = 32

    @staticmethod
    def forward(ctx: Any, logits_MV: Tensor, labels_M: Tensor) -> Tensor:
        logsum_M = torch.empty(len(labels_M), dtype=torch.promote_types(logits_MV.dtype, torch.float32))
        for first in range(0, len(labels_M), _CrossEntropy.ROWS):
            rows = slice(first, first + _CrossEntropy.ROWS)
            logsum_M[rows] = logits_MV[rows].to(logsum_M.dtype).logsumexp(-1)
        ctx.save_for_backward(logits_MV, labels_M, logsum_M)
        return (logsum_M - logits_MV.gather(1, labels_M[:, None])[:, 0]).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits_MV, labels_M, logsum_M = ctx.saved_tensors
        result = torch.empty_like(logits_MV)
        for first in range(0, len(labels_M), _CrossEntropy.ROWS):
            rows = slice(first, first + _CrossEntropy.ROWS)
            probabilities = (logits_MV[rows] - logsum_M[rows, None]).exp_()
            probabilities[torch.arange(len(probabilities)), labels_M[rows]] -= 1
            result[rows] = probabilities.mul_(grad)
        return result, None
