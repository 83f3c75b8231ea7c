"""What a student minimises: a mix of what teachers say and what the labels say (Hinton et al. 2015, section 2).

With student logits ``s``, the teachers' mean probabilities ``q`` at temperature ``T``, label ``y`` and share ``a``::

    one of several classes   a * T^2 * CE(q, softmax(s / T))     + (1 - a) * CE(y, softmax(s))
    several classes at once  a * T^2 * BCE(q, sigmoid(s / T))    + (1 - a) * BCE(y, sigmoid(s))    mean over classes
    a value                  (s - (a * q + (1 - a) * y))^2

``CE(q, p) = -sum(q * log p)``. The gradient of the first term shrinks as ``1 / T^2``; the factor ``T^2`` keeps the
balance of the terms as ``T`` changes. At ``T = 1`` the mix is the cross-entropy against ``a * q + (1 - a) * y``. The
squared error against the mixed value has the gradient of the mixed squared errors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from squeezebert.data.collate import Batch
from squeezebert.training.hidden_states import HiddenStateLoss
from squeezebert.training.losses import ClassificationLoss, forward, to_device, unwrapped


class DistillationLoss:
    """Loss of a sequence classifier that learns from teachers and labels.

    With ``alpha`` 0 it is :class:`ClassificationLoss` itself, with ``alpha`` 1 it never looks at a label.

    Args:
        device: Where the model is.
        soft_targets: Positions of examples -> what the teachers say of them, ``[B, K]``.
        alpha: Share of the teachers, 0 to 1.
        temperature: The temperature at which ``soft_targets`` were computed.
        labelled: Number of examples that have a label; of those at later positions only the teachers count.
        hidden: The distance of hidden states, which is added to the loss; None: not looked at.
    """

    def __init__(
        self,
        device: torch.device,
        soft_targets: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        *,
        alpha: float,
        temperature: float,
        labelled: int,
        hidden: HiddenStateLoss | None = None,
    ) -> None:
        self.names: tuple[str, ...] = ("loss",) if hidden is None else ("prediction_loss", "hidden_loss")
        self._hidden = hidden
        self._plain = ClassificationLoss(device)
        self._device = device
        self._soft_targets = soft_targets
        self._alpha = alpha
        self._temperature = temperature
        self._labelled = labelled

    def count(self, batch: Batch) -> tuple[float, ...]:
        """Number of examples; for the hidden states, of tokens."""
        examples = self._plain.count(batch)
        return examples if self._hidden is None else (*examples, self.tokens(batch))

    def tokens(self, batch: Batch) -> int:
        """Number of tokens without padding."""
        return self._plain.tokens(batch)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum of the examples' losses, and of the tokens' where hidden states are compared. *Shape:* ``[terms]``."""
        if self._alpha == 0:
            return self._plain(model, batch)
        output = forward(model, batch, self._device, hidden_states=self._hidden is not None)
        terms = [self._prediction(output.logits.float(), batch, unwrapped(model).config.problem_type)]
        if self._hidden is not None:
            terms.append(self._hidden(output.hidden_states, batch))
        return torch.stack(terms)

    def _prediction(self, logits_BK: Tensor, batch: Batch, kind: str) -> Tensor:
        """Sum of the examples' losses. Scalar."""
        soft_BK = to_device(self._soft_targets(batch.indices), self._device)
        if self._alpha == 1:
            return self._soft(logits_BK, soft_BK, kind).sum()
        labels = to_device(batch.labels, self._device)
        shares = np.where(batch.indices < self._labelled, self._alpha, 1.0).astype(np.float32)
        share_B = to_device(shares, self._device)
        if kind == "regression":
            target_B = share_B * soft_BK[:, 0] + (1 - share_B) * labels
            return self._soft(logits_BK, target_B[:, None], kind).sum()
        losses_B = share_B * self._soft(logits_BK, soft_BK, kind) + (1 - share_B) * _hard(logits_BK, labels, kind)
        return losses_B.sum()

    def _soft(self, logits_BK: Tensor, soft_BK: Tensor, kind: str) -> Tensor:
        """Loss of each example against the teachers. *Shape:* ``[B]``."""
        if kind == "regression":
            return F.mse_loss(logits_BK, soft_BK, reduction="none")[:, 0]
        scaled_BK = logits_BK / self._temperature
        if kind == "multi_label_classification":
            losses_B = F.binary_cross_entropy_with_logits(scaled_BK, soft_BK, reduction="none").mean(1)
        else:
            losses_B = F.cross_entropy(scaled_BK, soft_BK, reduction="none")
        return self._temperature**2 * losses_B


def _hard(logits_BK: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Loss of each example against its label. *Shape:* ``[B]``."""
    if kind == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits_BK, labels, reduction="none").mean(1)
    return F.cross_entropy(logits_BK, labels, reduction="none")
