"""What a step minimises: the sum of a batch's losses, and how many it sums, so that the loop can take global means."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from squeezebert.data.collate import Batch
from squeezebert.model.heads import sequence_loss


def forward(model: nn.Module, batch: Batch, device: torch.device, *, hidden_states: bool = False) -> Any:
    """Run a model on a batch of arrays; the output is its ``ModelOutput``, with hidden states where asked for."""
    return model(
        to_device(batch.input_ids, device),
        to_device(batch.attention_mask, device),
        to_device(batch.token_type_ids, device),
        token_indices=None if batch.token_indices is None else to_device(batch.token_indices, device),
        output_hidden_states=hidden_states,
    )


def to_device(array: Any, device: torch.device) -> Tensor:
    """Copy an array to a device, without waiting for the copy where that is possible."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class ClassificationLoss:
    """Loss of a sequence classifier: cross-entropy, binary cross-entropy (mean over classes) or squared error.

    Args:
        device: Where the model is.
    """

    names = ("loss",)

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def count(self, batch: Batch) -> tuple[float, ...]:
        """Number of examples."""
        return (len(batch.indices),)

    def tokens(self, batch: Batch) -> int:
        """Number of tokens without padding."""
        return int(batch.attention_mask.sum())

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum of the examples' losses. *Shape:* ``[1]``."""
        logits_BK = forward(model, batch, self._device).logits.float()
        labels = to_device(batch.labels, self._device)
        config = unwrapped(model).config
        total = sequence_loss(logits_BK, labels, config, reduction="sum")
        if config.problem_type == "multi_label_classification":
            total = total / config.num_labels
        return total.view(1)


def unwrapped(model: nn.Module) -> Any:
    """The model itself, without the wrapper that averages gradients over processes."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
