"""The three forms of the grouped layer against a plain loop, values and gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from squeezebert.model.grouped import FORMS, Form, GroupedLinear, fastest_form, grouped_linear


def reference(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Dense layer whose weight is zero outside the diagonal blocks, in fp64."""
    out, narrow = weight.shape
    dense = torch.zeros(out, narrow * groups, dtype=torch.float64)
    for g in range(groups):
        rows = slice(g * out // groups, (g + 1) * out // groups)
        dense[rows, g * narrow : (g + 1) * narrow] = weight[rows].double()
    return x.double() @ dense.T + bias.double()


SHAPES = [
    # leading shape, in, out, groups
    ((1,), 8, 8, 4),
    ((3, 5), 12, 24, 3),
    ((2, 17), 24, 6, 2),
    ((31,), 16, 16, 1),
    ((2, 33), 768, 3072, 4),
    ((1, 129), 3072, 768, 4),
    ((4, 1), 10, 15, 5),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("leading", "inputs", "outputs", "groups"), SHAPES)
def test_forms_equal_block_diagonal_dense(
    form: Form, leading: tuple[int, ...], inputs: int, outputs: int, groups: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(*leading, inputs)
    weight = torch.randn(outputs, inputs // groups) / (inputs // groups) ** 0.5
    bias = torch.randn(outputs)
    y_grad = torch.randn(*leading, outputs)

    leaves = [each.clone().requires_grad_() for each in (x, weight, bias)]
    y = grouped_linear(*leaves, groups, form)
    exact_leaves = [each.double().requires_grad_() for each in (x, weight, bias)]
    exact = reference(*exact_leaves, groups)
    grads = torch.autograd.grad(y, leaves, y_grad)
    exact_grads = torch.autograd.grad(exact, exact_leaves, y_grad.double())

    # A sum of n products in fp32 is off by at most about n * eps * sum |a b|; unit-variance terms, so n * eps * sqrt(n)
    # is generous for the longest sums here: 768 channels, or the tokens in a weight's gradient.
    assert y.shape == (*leading, outputs)
    torch.testing.assert_close(y.double(), exact, atol=1e-5, rtol=1e-5)
    for grad, exact_grad in zip(grads, exact_grads, strict=True):
        scale = exact_grad.abs().max().item()
        torch.testing.assert_close(grad.double(), exact_grad, atol=1e-5 * max(1.0, scale), rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_inputs_may_be_strided(form: Form) -> None:
    torch.manual_seed(1)
    x = torch.randn(8, 6).T  # [6, 8] in column order
    weight, bias = torch.randn(4, 4), torch.randn(4)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            y = grouped_linear(x, weight.requires_grad_(grad), bias, 2, form)
        torch.testing.assert_close(y.detach().double(), reference(x, weight.detach(), bias, 2), atol=1e-6, rtol=1e-5)


def test_second_half_of_gradients_is_skipped_when_frozen() -> None:
    x, weight, bias = torch.randn(5, 8), torch.randn(8, 2), torch.randn(8)
    x.requires_grad_()
    grouped_linear(x, weight, bias, 4, "conv").sum().backward()
    assert x.grad is not None
    assert weight.grad is None


def test_the_form_follows_the_table() -> None:
    few, some, many = (torch.randn(tokens, 8) for tokens in (32, 208, 1024))
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert [fastest_form(x) for x in (few, some, many)] == ["bmm", "conv", "conv"]
            last = "split" if grad else "conv"
            assert [fastest_form(x.bfloat16()) for x in (few, some, many)] == ["bmm", "bmm", last]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert fastest_form(many) == last
    layer = GroupedLinear(8, 8, 2)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(many).dtype == torch.bfloat16


@pytest.mark.parametrize(("leading", "inputs", "outputs", "groups"), SHAPES)
def test_packed_weights_give_the_same(leading: tuple[int, ...], inputs: int, outputs: int, groups: int) -> None:
    torch.manual_seed(2)
    layer = GroupedLinear(inputs, outputs, groups).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(*leading, inputs)
    with torch.no_grad():
        plain = layer(x)
        layer.pack()
        assert layer.packed is not None
        torch.testing.assert_close(layer(x), plain, atol=1e-4, rtol=1e-5)
        for tokens in (0, 1, 2, 16, 31, 64, 104, 128, 208, 1024, 1025):
            x_NC = torch.randn(tokens, inputs)
            expected = grouped_linear(x_NC, layer.weight, layer.bias, groups, "split")
            torch.testing.assert_close(layer(x_NC), expected, atol=1e-3, rtol=1e-5)
    assert layer(x.requires_grad_()).requires_grad  # gradients do not pass through packed weights
    assert copy.deepcopy(layer).packed is None


def test_packed_weights_are_dropped_when_the_weight_may_change() -> None:
    layer = GroupedLinear(8, 8, 4)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    other = {name: torch.randn_like(value) for name, value in layer.state_dict().items()}
    for change in (
        lambda: layer.train(),
        lambda: layer.load_state_dict(other),
        lambda: layer.double(),
        lambda: layer.float(),
    ):
        layer.pack()
        change()
        assert layer.packed is None
    layer.double().pack()
    assert layer.packed is None
    assert "packed" not in layer.state_dict()
