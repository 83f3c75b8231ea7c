from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from squeezebert.training.pretraining_loss import _CrossEntropy


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 32, 77])
def test_loss_and_gradient_are_torch_s(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(0)
    scores = (3 * torch.randn(rows, 50)).to(dtype)
    scores[:, 45:] = float("-inf")  # rows that only pad the vocabulary
    labels = torch.randint(0, 45, (rows,))
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss = _CrossEntropy.apply(ours, labels)
    expected = F.cross_entropy(theirs.to(torch.promote_types(dtype, torch.float32)), labels, reduction="sum")
    (loss * 0.37).backward()
    (expected * 0.37).backward()
    torch.testing.assert_close(loss.to(expected.dtype), expected, rtol=1e-5, atol=1e-5)
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=8e-3 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
