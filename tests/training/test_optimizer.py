"""LAMB against its two references, written here from their equations, and which weights decay."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from squeezebert.training.optimizer import Lamb, build_optimizer, parameter_groups

Arrays = dict[str, np.ndarray]
SHAPES = {"weight": (17, 9), "grouped": (4, 6, 5), "zero": (3, 4), "bias": (17,), "gain": (9,)}
UNDECAYED = ("bias", "gain")
BETA1, BETA2, EPS, DECAY, RATE = 0.9, 0.999, 1e-6, 0.01, 3e-3


def albert(w: Arrays, g: Arrays, m: Arrays, v: Arrays, step: int, *, everywhere: bool) -> None:
    """google-research/albert lamb_optimizer.py: raw moments; excluded names have neither decay nor trust ratio."""
    for name in w:
        m[name] = BETA1 * m[name] + (1 - BETA1) * g[name]
        v[name] = BETA2 * v[name] + (1 - BETA2) * np.square(g[name])
        update = m[name] / (np.sqrt(v[name]) + EPS)
        excluded = name in UNDECAYED
        if not excluded:
            update = update + DECAY * w[name]
        ratio = 1.0
        if not excluded or everywhere:
            w_norm, u_norm = np.linalg.norm(w[name].ravel()), np.linalg.norm(update.ravel())
            ratio = (w_norm / u_norm if u_norm > 0 else 1.0) if w_norm > 0 else 1.0
        w[name] = w[name] - ratio * RATE * update


def nvidia(w: Arrays, g: Arrays, m: Arrays, v: Arrays, step: int, *, everywhere: bool) -> None:
    """NVIDIA DeepLearningExamples, PyTorch BERT (apex multi_tensor_lamb, mode 1): corrected moments; use_nvlamb."""
    correction1, correction2 = 1 - BETA1**step, 1 - BETA2**step
    for name in w:
        decay = 0.0 if name in UNDECAYED else DECAY
        m[name] = m[name] * BETA1 + (1 - BETA1) * g[name]
        v[name] = v[name] * BETA2 + (1 - BETA2) * g[name] * g[name]
        update = (m[name] / correction1) / (np.sqrt(v[name] / correction2) + EPS) + decay * w[name]
        rate = RATE
        if everywhere or decay != 0.0:
            w_norm, u_norm = np.linalg.norm(w[name].ravel()), np.linalg.norm(update.ravel())
            rate = RATE * (w_norm / u_norm) if u_norm != 0 and w_norm != 0 else RATE
        w[name] = w[name] - rate * update


def start(seed: int = 0) -> Arrays:
    generator = np.random.default_rng(seed)
    weights = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    weights["zero"] = np.zeros(SHAPES["zero"])
    return weights


def gradients(step: int) -> Arrays:
    """Gradients of very different sizes; none at all for one tensor in the first steps, so that its update is 0."""
    generator = np.random.default_rng(1000 + step)
    sizes = {"weight": 1.0, "grouped": 1e-4, "zero": 0.1, "bias": 10.0, "gain": 1e-6}
    values = {name: sizes[name] * generator.normal(size=shape) for name, shape in SHAPES.items()}
    if step <= 3:
        values["gain"] = np.zeros(SHAPES["gain"])
    return values


def lamb(weights: Arrays, dtype: torch.dtype = torch.float32, **settings: Any) -> tuple[dict[str, nn.Parameter], Lamb]:
    parameters = {name: nn.Parameter(torch.tensor(value, dtype=dtype)) for name, value in weights.items()}
    groups = [
        {"params": [p for name, p in parameters.items() if name not in UNDECAYED], "weight_decay": DECAY},
        {"params": [p for name, p in parameters.items() if name in UNDECAYED], "weight_decay": 0.0},
    ]
    return parameters, Lamb(groups, lr=RATE, **settings)


def give_gradients(parameters: dict[str, nn.Parameter], step: int, clip: bool = False) -> None:
    for name, value in gradients(step).items():
        parameters[name].grad = torch.tensor(value, dtype=parameters[name].dtype)
    if clip:
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)


@pytest.mark.parametrize("foreach", [True, False], ids=["foreach", "loop"])
@pytest.mark.parametrize("everywhere", [False, True], ids=["ratio 1 without decay", "ratio everywhere"])
@pytest.mark.parametrize(("reference", "bias_correction"), [(albert, False), (nvidia, True)])
def test_equals_the_reference_step_by_step(
    reference: Any, bias_correction: bool, everywhere: bool, foreach: bool
) -> None:
    w = start()
    m = {name: np.zeros_like(value) for name, value in w.items()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    parameters, optimizer = lamb(w, bias_correction=bias_correction, adapt_undecayed=everywhere, foreach=foreach)
    for step in range(1, 21):
        g = gradients(step)
        norm = np.sqrt(sum(np.sum(np.square(value)) for value in g.values()))
        assert norm > 1
        reference(w, {name: value / norm for name, value in g.items()}, m, v, step, everywhere=everywhere)
        give_gradients(parameters, step, clip=True)
        optimizer.step()
        for name, expected in w.items():
            np.testing.assert_allclose(
                parameters[name].detach().numpy(), expected, rtol=1e-6, atol=1e-6, err_msg=f"{name}, step {step}"
            )


def test_the_four_variants_differ() -> None:
    """Else the comparison above could not tell them apart."""
    results = []
    for bias_correction in (False, True):
        for everywhere in (False, True):
            parameters, optimizer = lamb(start(), bias_correction=bias_correction, adapt_undecayed=everywhere)
            for step in range(1, 6):
                give_gradients(parameters, step)
                optimizer.step()
            results.append(torch.cat([p.detach().flatten() for p in parameters.values()]))
    for i, one in enumerate(results):
        for other in results[:i]:
            assert (one - other).abs().max() > 1e-4


def test_zero_weights_and_zero_updates_have_ratio_1() -> None:
    weight, still = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.ones(3, 4))
    optimizer = Lamb([weight, still], lr=0.1, weight_decay=0.0, adapt_undecayed=True)
    weight.grad, still.grad = torch.full((3, 4), 0.5), torch.zeros(3, 4)
    optimizer.step()
    # First step with bias correction: m' / sqrt(v') is the gradient's sign.
    torch.testing.assert_close(weight.detach(), torch.full((3, 4), -0.1), atol=1e-6, rtol=0)
    torch.testing.assert_close(still.detach(), torch.ones(3, 4), atol=0, rtol=0)


def test_a_parameter_without_gradient_stays() -> None:
    parameters, optimizer = lamb(start())
    give_gradients(parameters, 5)
    parameters["bias"].grad = None
    before = parameters["bias"].detach().clone()
    optimizer.step()
    assert torch.equal(parameters["bias"], before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_dict_round_trip_is_bit_identical(dtype: torch.dtype) -> None:
    parameters, optimizer = lamb(start(), dtype)
    for step in range(1, 6):
        give_gradients(parameters, step)
        optimizer.step()
    weights = {name: p.detach().float().numpy() for name, p in parameters.items()}
    others, resumed = lamb(weights, dtype)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(6, 12):
        for tensors, one in ((parameters, optimizer), (others, resumed)):
            give_gradients(tensors, step)
            one.step()
    for name in SHAPES:
        assert torch.equal(parameters[name], others[name])
        assert resumed.state[others[name]]["exp_avg"].dtype == torch.float32
        assert torch.equal(optimizer.state[parameters[name]]["exp_avg_sq"], resumed.state[others[name]]["exp_avg_sq"])


def test_bf16_weights_follow_fp32_ones() -> None:
    """Every update is far below the spacing of bf16, so without the fp32 copies no weight would move."""
    weights = {name: np.abs(value) + 1 for name, value in start().items()}
    rounded = {name: torch.tensor(value).bfloat16().double().numpy() for name, value in weights.items()}
    narrow, one = lamb(rounded, torch.bfloat16)
    wide, other = lamb(rounded)
    for optimizer in (one, other):
        for group in optimizer.param_groups:
            group["lr"] = 1e-4
    for _ in range(200):
        for name in SHAPES:
            gradient = torch.ones(SHAPES[name], dtype=torch.bfloat16)
            narrow[name].grad, wide[name].grad = gradient, gradient.float()
        one.step()
        other.step()
    for name in SHAPES:
        assert narrow[name].dtype == torch.bfloat16
        assert torch.equal(narrow[name].detach(), wide[name].detach().bfloat16())
        assert not np.array_equal(narrow[name].detach().double().numpy(), rounded[name])


def test_a_step_reads_nothing_back_from_the_device() -> None:
    """Fake tensors hold no values: reading one, as a host synchronisation would, raises."""
    with FakeTensorMode():
        parameters = [nn.Parameter(torch.empty(4, 3)), nn.Parameter(torch.empty(4, dtype=torch.bfloat16))]
        optimizer = Lamb(parameters, lr=0.1, weight_decay=0.01)
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
        with pytest.raises(DataDependentOutputException):
            parameters[0].sum().item()


def test_closure_is_evaluated_with_gradients() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = Lamb([parameter], lr=0.1)

    def closure() -> float:
        loss = parameter.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 4.0
    assert not torch.equal(parameter, torch.ones(2, 2))


class Odd(nn.Module):
    """Names that mislead: only type and rank may count."""

    def __init__(self) -> None:
        super().__init__()
        self.layernorm = nn.Linear(3, 3)
        self.bias = nn.Linear(3, 3, bias=False)
        self.weight = nn.LayerNorm((3, 3))
        self.tied = self.bias
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.embedding = nn.Embedding(5, 3)


def test_groups_go_by_type_and_rank() -> None:
    model = Odd()
    decayed, undecayed = parameter_groups(model, 0.3)
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.3, 0.0)
    assert {id(p) for p in decayed["params"]} == {
        id(p) for p in (model.layernorm.weight, model.bias.weight, model.embedding.weight)
    }
    assert {id(p) for p in undecayed["params"]} == {
        id(p) for p in (model.layernorm.bias, model.weight.weight, model.weight.bias)
    }
    assert len(decayed["params"]) == len(undecayed["params"]) == 3


def test_all_norms_and_biases_of_base_are_excluded() -> None:
    from squeezebert.model.config import ModelConfig
    from squeezebert.model.heads import HEADS

    with torch.device("meta"):
        model = HEADS["pretraining"](ModelConfig())
    decayed, undecayed = (group["params"] for group in parameter_groups(model, 0.01))
    assert len(decayed) + len(undecayed) == len(list(model.parameters()))
    excluded = {id(parameter) for parameter in undecayed}
    encoder_norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    # One in the embeddings, two in each of 12 layers, and the MLM head's own.
    assert len(encoder_norms) == 25 + 1
    assert all(id(parameter) in excluded for norm in encoder_norms for parameter in norm.parameters())
    biases = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
    assert len(biases) > 25 * 2
    assert all(id(bias) in excluded for bias in biases)
    # Six grouped layers in each of 12 encoder layers and three embedding tables, at the least.
    assert len(decayed) >= 6 * 12 + 3


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_build_optimizer_lowers_a_loss(name: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1))
    optimizer = build_optimizer(model, name=name, learning_rate=1e-2)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
