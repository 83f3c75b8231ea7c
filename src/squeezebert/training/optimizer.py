"""LAMB and AdamW, and which weights decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay and those that do not.

    Decay is for tensors of rank 2 or more that do not belong to a normalisation: biases and the gains of norms are
    left alone. Module type and tensor rank decide. Names do not: SqueezeBERT's encoder norms are called
    ``layernorm`` and those of its embeddings ``LayerNorm``, so a list of names misses 24 of 25.

    Args:
        model: Module whose parameters are to be trained; a parameter that several modules share appears once.
        weight_decay: Decay of the first group.

    Returns:
        Two parameter groups for a torch optimizer, decaying and not decaying; an empty one is left out.
    """
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            decays = parameter.dim() >= 2 and not isinstance(module, NORMS)
            (decayed if decays else undecayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Lamb(torch.optim.Optimizer):
    r"""LAMB (You et al. 2020, "Large Batch Optimization for Deep Learning", algorithm 2), in both published variants.

    With gradient ``g``, weight ``w``, moments ``m`` and ``v``, decay ``d`` and step ``t`` counted from 1::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m', v' = m / (1 - beta1 ** t), v / (1 - beta2 ** t)     with bias correction; else m, v
        u = m' / (sqrt(v') + eps) + d * w
        r = norm(w) / norm(u)                                   1 where either norm is 0
        w = w - lr * r * u

    The norms are those of one whole tensor. ``r`` is 1 for the tensors of a group without decay, as in both
    references, unless ``adapt_undecayed``.

    ==========================================================  ===============  =====================
    reference                                                   bias_correction  adapt_undecayed
    ==========================================================  ===============  =====================
    google-research/albert ``lamb_optimizer.py``                no               no
    NVIDIA DeepLearningExamples, PyTorch BERT; apex FusedLAMB   yes              no (``use_nvlamb``: yes)
    ==========================================================  ===============  =====================

    Both clip the gradients to a global norm of 1 beforehand; here that is left to the training loop.

    Moments are fp32. A weight of lower precision has an fp32 copy in the state, which takes the updates: bf16 keeps
    8 bits, so an update below 1/256 of a weight would otherwise be lost. No value is read back from the device.

    Args:
        params: Parameters or parameter groups (see :func:`parameter_groups`).
        lr: Learning rate.
        betas: Decay of the first and the second moment.
        eps: Added to the root of the second moment.
        weight_decay: Decay of groups that do not bring their own.
        bias_correction: Divide the moments by ``1 - beta ** t``.
        adapt_undecayed: Compute ``r`` for groups without decay, too.
        foreach: Run each operation over all tensors of a group at once; else tensor by tensor, the plain reference.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = True,
        adapt_undecayed: bool = False,
        foreach: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "adapt_undecayed": adapt_undecayed,
            "step": 0,
        }
        self.foreach = foreach
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step along the gradients; a parameter without gradient stays as it is."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        update = _update_foreach if self.foreach else _update_one_by_one
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            group["step"] += 1
            if not parameters:
                continue
            states = [self._state_of(parameter) for parameter in parameters]
            narrow = [parameter for parameter in parameters if _wide(parameter) != parameter.dtype]
            weights = [state.get("weight", parameter) for state, parameter in zip(states, parameters, strict=True)]
            gradients = [parameter.grad for parameter in parameters]
            if narrow:
                gradients = [gradient.to(weight.dtype) for gradient, weight in zip(gradients, weights, strict=True)]
            beta1, beta2 = group["betas"]
            update(
                weights,
                gradients,
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                correction1=1 - beta1 ** group["step"] if group["bias_correction"] else 1.0,
                correction2=1 - beta2 ** group["step"] if group["bias_correction"] else 1.0,
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                adapt=group["weight_decay"] != 0 or group["adapt_undecayed"],
            )
            if narrow:
                torch._foreach_copy_(narrow, [self.state[parameter]["weight"] for parameter in narrow])
        return loss

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """Moments of a parameter, zero at first, and its fp32 copy where it is narrower than that."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            wide = _wide(parameter)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=wide)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=wide)
            if parameter.dtype != wide:
                state["weight"] = parameter.detach().to(wide)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave, bit for bit."""
        super().load_state_dict(state_dict)
        # torch casts the state to the dtype of its parameter; for bf16 that would round moments and fp32 copies.
        indices = [index for group in state_dict["param_groups"] for index in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, parameter in zip(indices, parameters, strict=True):
            if _wide(parameter) != parameter.dtype and index in state_dict["state"]:
                self.state[parameter] = {
                    name: value.to(device=parameter.device, copy=True)
                    for name, value in state_dict["state"][index].items()
                }


def _wide(parameter: Tensor) -> torch.dtype:
    """Dtype of the moments: the parameter's own, at least fp32."""
    return torch.promote_types(parameter.dtype, torch.float32)


def _update_foreach(
    weights: list[Tensor],
    gradients: list[Tensor],
    first_moments: list[Tensor],
    second_moments: list[Tensor],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    correction1: float,
    correction2: float,
    eps: float,
    weight_decay: float,
    adapt: bool,
) -> None:
    """Update all tensors of a group, operation by operation; see :class:`Lamb`."""
    torch._foreach_lerp_(first_moments, gradients, 1 - beta1)
    torch._foreach_mul_(second_moments, beta2)
    torch._foreach_addcmul_(second_moments, gradients, gradients, 1 - beta2)
    # m' / (sqrt(v') + eps) = (m * sqrt(c2) / c1) / (sqrt(v) + eps * sqrt(c2)): the corrections move into two scalars.
    root = correction2**0.5
    updates = torch._foreach_sqrt(second_moments)
    torch._foreach_add_(updates, eps * root)
    torch._foreach_reciprocal_(updates)
    torch._foreach_mul_(updates, first_moments)
    torch._foreach_mul_(updates, root / correction1)
    if weight_decay:
        torch._foreach_add_(updates, weights, alpha=weight_decay)
    if not adapt:
        torch._foreach_add_(weights, updates, alpha=-lr)
        return
    weight_norms = torch.stack(torch._foreach_norm(weights))
    update_norms = torch.stack(torch._foreach_norm(updates))
    ratios = torch.where((weight_norms > 0) & (update_norms > 0), weight_norms / update_norms, 1.0)
    torch._foreach_addcmul_(weights, updates, list(ratios.unbind()), -lr)


def _update_one_by_one(
    weights: list[Tensor],
    gradients: list[Tensor],
    first_moments: list[Tensor],
    second_moments: list[Tensor],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    correction1: float,
    correction2: float,
    eps: float,
    weight_decay: float,
    adapt: bool,
) -> None:
    """Update tensor by tensor, written as in the paper; see :class:`Lamb`."""
    for w, g, m, v in zip(weights, gradients, first_moments, second_moments, strict=True):
        m.copy_(beta1 * m + (1 - beta1) * g)
        v.copy_(beta2 * v + (1 - beta2) * g * g)
        u = (m / correction1) / ((v / correction2).sqrt() + eps) + weight_decay * w
        ratio = torch.ones((), device=w.device)
        if adapt:
            ratio = torch.where((w.norm() > 0) & (u.norm() > 0), w.norm() / u.norm(), ratio)
        w.copy_(w - lr * ratio * u)


def build_optimizer(
    model: nn.Module,
    *,
    name: Literal["adamw", "lamb"] = "adamw",
    learning_rate: float,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    bias_correction: bool = True,
    adapt_undecayed: bool = False,
) -> torch.optim.Optimizer:
    """Build the optimizer of a model, decay only where :func:`parameter_groups` says so.

    Args:
        model: Module to train, already on its device.
        name: "adamw" (torch's, fused) or "lamb" (:class:`Lamb`).
        learning_rate: Learning rate at the peak; the loop sets each step's from the schedule.
        weight_decay: Decay of weights of rank 2 or more.
        betas: Decay of the first and the second moment.
        eps: Added to the root of the second moment.
        bias_correction: LAMB only: divide the moments by ``1 - beta ** t``. AdamW always does.
        adapt_undecayed: LAMB only: compute the trust ratio of tensors without decay, too.
    """
    groups = parameter_groups(model, weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)
    return Lamb(
        groups,
        lr=learning_rate,
        betas=betas,
        eps=eps,
        bias_correction=bias_correction,
        adapt_undecayed=adapt_undecayed,
    )
