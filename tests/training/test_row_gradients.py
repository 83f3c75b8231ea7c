from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from squeezebert.training import row_gradients
from squeezebert.training.row_gradients import RowGradients


@pytest.fixture(autouse=True)
def _small_counts_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_gradients, "LARGE", 1)


def _twins() -> tuple[nn.Embedding, nn.Embedding]:
    table = nn.Embedding(20, 3, padding_idx=0)
    twin = nn.Embedding(20, 3, padding_idx=0)
    twin.load_state_dict(table.state_dict())
    return table, twin


def test_gradients_are_those_of_autograd_step_after_step() -> None:
    torch.manual_seed(0)
    plain, ours = _twins()
    rows = RowGradients(ours, enabled=True)
    scale = torch.randn(20)
    for _ in range(3):
        # Two micro-batches, with repeated ids and padding.
        for _ in range(2):
            ids = torch.randint(0, 20, (9,))
            for table in (plain, ours):
                (table(ids).square().sum(1) * scale[ids]).sum().backward()
        rows.gather()
        assert ours.weight.grad is not None
        assert plain.weight.grad is not None
        assert not ours.weight.grad.is_sparse
        torch.testing.assert_close(ours.weight.grad, plain.weight.grad)
        plain.weight.grad = ours.weight.grad = None


def test_a_weight_that_also_decodes_keeps_its_dense_gradient() -> None:
    torch.manual_seed(0)
    plain, ours = _twins()
    rows = RowGradients(ours, enabled=True)
    ids = torch.tensor([1, 1, 4])
    for table in (plain, ours):
        F.cross_entropy(F.linear(table(ids), table.weight), torch.tensor([2, 3, 4])).backward()  # type: ignore[no-untyped-call]
    rows.gather()
    assert ours.weight.grad is not None
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad)


def test_the_embedding_is_left_as_it_was() -> None:
    table = nn.Embedding(20, 3)
    rows = RowGradients(table, enabled=True)
    assert table.sparse
    rows.release()
    table(torch.tensor([1])).sum().backward()
    assert table.weight.grad is not None
    assert not table.weight.grad.is_sparse


def test_disabled_it_does_nothing() -> None:
    table = nn.Embedding(20, 3)
    RowGradients(table, enabled=False)
    assert not table.sparse


def test_compiled_models_are_left_alone() -> None:
    model = nn.Sequential(nn.Embedding(20, 3))
    model.compile(backend="eager")
    RowGradients(model, enabled=True)
    assert not model[0].sparse
