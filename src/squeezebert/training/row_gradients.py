"""Gradients of large embeddings on a CPU, written row by row.

A batch touches a few hundred rows of a word embedding. Autograd's dense gradient takes fresh memory for all 30,528 of
them at every step, fills it with zeros and gives it back: for `base` 94 MB, 5 to 8 % of a step at batch 16. Here the
embedding gives a sparse gradient instead, whose rows are put into one dense tensor that stays, so every optimizer still
sees the dense gradient that it would have seen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LARGE = 1 << 20
"""Entries from which on an embedding is worth the trouble."""


class RowGradients:
    """Makes large embeddings give their gradients by rows.

    Args:
        model: Holds the embeddings.
        enabled: Otherwise everything here does nothing. Not for several processes, which average dense gradients.
            A compiled model is left alone, too: torch's compiler falls back to eager where a gradient is sparse.
    """

    def __init__(self, model: nn.Module, *, enabled: bool) -> None:
        enabled = enabled and model._compiled_call_impl is None
        self._tables = [
            module
            for module in model.modules()
            if enabled and isinstance(module, nn.Embedding) and module.weight.numel() >= LARGE and not module.sparse
        ]
        self._gradients = [torch.zeros_like(table.weight) for table in self._tables]
        self._touched: list[Tensor | None] = [None for _ in self._tables]
        for table in self._tables:
            table.sparse = True

    def gather(self) -> None:
        """Make the gradients dense; to be called after the last backward pass of a step.

        An embedding whose weight also serves elsewhere, as a tied decoder, has a dense gradient already.
        """
        for number, (table, dense) in enumerate(zip(self._tables, self._gradients, strict=True)):
            if table.weight.grad is None or not table.weight.grad.is_sparse:
                continue
            sparse = table.weight.grad.coalesce()
            touched = self._touched[number]
            if touched is not None:
                dense.index_fill_(0, touched, 0.0)
            self._touched[number] = sparse.indices()[0]
            dense.index_copy_(0, sparse.indices()[0], sparse.values())
            table.weight.grad = dense

    def release(self) -> None:
        """Leave the embeddings as they were."""
        for table in self._tables:
            table.sparse = False
            table.weight.grad = None
