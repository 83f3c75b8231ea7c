"""The paper's idea: a position-wise fully connected layer cut into groups (Iandola et al. 2020, section 3.2).

A kernel-1 grouped convolution over tokens: output channel block g sees input channel block g only,

    y[n, g, o] = sum_i weight[g, o, i] * x[n, g, i] + bias[g, o]

so its weight has 1/G of the dense layer's entries. The weight is stored once, ``[out, in / groups]``, and applied in
one of three equal forms; which is fastest depends on device and number format (benchmarks/grouped_forms.py).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from squeezebert.model.packing import MOST_TOKENS, PackedWeight, can_pack

Form = Literal["auto", "conv", "split", "bmm"]
FORMS: tuple[Form, ...] = get_args(Form)
_HAS_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
_HAS_AVX512 = "AVX512" in torch.backends.cpu.get_cpu_capability()


class GroupedLinear(nn.Module):
    """Position-wise layer with grouped channels.

    Args:
        in_features: Input channels, a multiple of ``groups``.
        out_features: Output channels, a multiple of ``groups``.
        groups: Independent blocks of channels; 1 is a dense layer.

    Attributes:
        weight: ``[out_features, in_features / groups]``; rows of group g are ``g * out / groups`` and following.
        bias: ``[out_features]``.
        packed: The weight as oneDNN reads it, after :meth:`pack`; else None.
        form: How the product is computed: "conv" (kernel-1 convolution), "split" (one linear per group), "bmm" (one
            batched matrix product) or "auto" (the fastest by measurement for the input's device and number format).
    """

    def __init__(self, in_features: int, out_features: int, groups: int = 1) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.groups = groups
        self.form: Form = "auto"
        self.weight = nn.Parameter(torch.empty(out_features, in_features // groups))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.packed: PackedWeight | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: ``[..., in_features]`` to ``[..., out_features]``."""
        if self.packed is not None and not torch.is_grad_enabled() and _onednn_applies(x):
            x_NC = x.reshape(-1, self.in_features)
            if self.form in ("auto", "conv") and 0 < len(x_NC) <= MOST_TOKENS:
                return self.packed.product(x_NC, self.bias).view(*x.shape[:-1], self.out_features)
        return grouped_linear(x, self.weight, self.bias, self.groups, self.form)

    def pack(self) -> None:
        """Lay the weight out once for inference in fp32 on a CPU; does nothing where that is not possible.

        The copy is dropped when the layer is moved, loaded or put back to training. It does not see other changes.
        """
        self.packed = PackedWeight(self.weight, self.groups) if can_pack(self.weight) else None

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; training changes the weight, so it unpacks."""
        if mode:
            self.packed = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.packed = None
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.packed = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"packed": None}  # opaque to copying; packed again where it is wanted

    def extra_repr(self) -> str:
        """Sizes shown when the module is printed."""
        return f"{self.in_features}, {self.out_features}, groups={self.groups}, form={self.form}"


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor, groups: int = 1, form: Form = "auto") -> Tensor:
    """Grouped position-wise product; see the module's formula.

    Args:
        x: ``[..., in]``.
        weight: ``[out, in / groups]``.
        bias: ``[out]``.
        groups: Blocks of channels.
        form: "conv", "split", "bmm" or "auto".

    Returns:
        ``[..., out]``.
    """
    if form == "auto":
        form = fastest_form(x, groups)
    # A convolution of nothing is refused: no token of a batch may have been masked.
    if form == "conv" and x.numel():
        return _conv(x, weight, bias, groups)
    if groups == 1:
        return F.linear(x, weight, bias)
    return _split(x, weight, bias, groups) if form == "split" else _bmm(x, weight, bias, groups)


def fastest_form(x: Tensor, groups: int = 4) -> Form:
    """The form that benchmarks/grouped_forms.py found fastest for the input's device, number format and token count.

    fp32 on a CPU: "conv", whose kernels (oneDNN) are about twice as fast as the matrix library's where there is
    AVX-512, in dense layers too, and a tenth faster elsewhere, in grouped layers only; for a few tokens "bmm", which
    lays no weight out. bf16 on a CPU: "bmm"; for many tokens "conv", or "split" where gradients follow. Elsewhere
    "bmm": one launch a layer. Inside a graph the token count is open, and taken as large.
    """
    if x.device.type != "cpu":
        return "bmm"
    few = not torch.compiler.is_compiling() and x.numel() < 64 * x.shape[-1]
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    if dtype == torch.float32:
        if groups == 1 and not _HAS_AVX512:
            return "split"  # a plain linear layer
        return "bmm" if few else "conv"
    if not torch.compiler.is_compiling() and x.numel() < 512 * x.shape[-1]:
        return "bmm"
    return "split" if torch.is_grad_enabled() else "conv"


def _split(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    parts = zip(x.chunk(groups, -1), weight.chunk(groups, 0), bias.chunk(groups, 0), strict=True)
    return torch.cat([F.linear(x_g, weight_g, bias_g) for x_g, weight_g, bias_g in parts], -1)


def _bmm(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    x_GNI = x.reshape(-1, groups, weight.shape[1]).transpose(0, 1)
    weight_GIO = weight.view(groups, -1, weight.shape[1]).transpose(1, 2)
    y_GNO = torch.baddbmm(bias.view(groups, 1, -1), x_GNI, weight_GIO)
    return y_GNO.transpose(0, 1).reshape(*x.shape[:-1], weight.shape[0])


def _conv(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    x_NC = x.reshape(-1, x.shape[-1])
    if not _onednn_applies(x):
        y_NC = F.conv2d(_as_image(x_NC), weight[:, :, None, None], bias, groups=groups).permute(0, 2, 3, 1)
    elif torch.is_grad_enabled():
        y_NC = _OneDnnConv.apply(x_NC, weight, bias, groups)  # type: ignore[no-untyped-call]
    else:
        y_NC = _onednn_convolution(x_NC, weight, bias, groups)
    return y_NC.reshape(*x.shape[:-1], weight.shape[0])


def _onednn_applies(x: Tensor) -> bool:
    """Whether oneDNN may be asked by name: eager fp32 on a CPU, whose torch was built with it."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and _HAS_ONEDNN
    )


def _as_image(x_NC: Tensor) -> Tensor:
    """View ``[N, C]`` as a one-column picture ``[1, C, N, 1]`` in channels-last memory: no copy, and no transpose."""
    return x_NC.contiguous()[None, :, None, :].permute(0, 3, 1, 2)


def _onednn_convolution(x_NC: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Ask oneDNN by name: ``F.conv2d`` takes a slow path for kernel-1 layers when torch runs on one thread."""
    image = torch.mkldnn_convolution(_as_image(x_NC), weight[:, :, None, None], bias, [0, 0], [1, 1], [1, 1], groups)
    return image.permute(0, 2, 3, 1).reshape(x_NC.shape[0], weight.shape[0])


class _OneDnnConv(torch.autograd.Function):
    """The convolution with a backward pass faster than autograd's own.

    oneDNN's grouped weight gradient is slow in channels-last memory. With AVX-512 one dense weight gradient per group,
    on a contiguous copy of the group's channels, is the fastest form of the same sum; without it that too runs at a
    sixth of the speed of the matrix library's batched product, which needs no copy. The gradient of the input is then
    another convolution, by the transposed weight, which one thread does twice as fast as oneDNN's own.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x_NC: Tensor, weight: Tensor, bias: Tensor, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x_NC, weight)
        ctx.groups = groups  # type: ignore[attr-defined]
        return _onednn_convolution(x_NC, weight, bias, groups)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad_NC: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x_NC, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        groups = ctx.groups  # type: ignore[attr-defined]
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
        return (
            _input_gradient(grad_NC, x_NC, weight, groups) if needs_x else None,
            _weight_gradient(grad_NC, x_NC, weight, groups) if needs_weight else None,
            grad_NC.sum(0) if needs_bias else None,
            None,
        )


def _input_gradient(grad_NC: Tensor, x_NC: Tensor, weight: Tensor, groups: int) -> Tensor:
    if _HAS_AVX512:
        image = _convolution_backward(grad_NC, x_NC, weight, groups, (True, False))[0]
        return image.permute(0, 2, 3, 1).reshape(x_NC.shape)
    transposed = weight.view(groups, -1, weight.shape[1]).transpose(1, 2).reshape(x_NC.shape[1], -1)
    return _onednn_convolution(grad_NC, transposed, None, groups)


def _weight_gradient(grad_NC: Tensor, x_NC: Tensor, weight: Tensor, groups: int) -> Tensor:
    x_GNI = x_NC.view(-1, groups, weight.shape[1]).transpose(0, 1)
    grad_GNO = grad_NC.reshape(-1, groups, weight.shape[0] // groups).transpose(0, 1)
    if not _HAS_AVX512:
        return torch.bmm(grad_GNO.transpose(1, 2), x_GNI).view(weight.shape)
    return torch.cat(
        [
            _convolution_backward(grad_NO, x_NI, weight_OI, 1, (False, True))[1].view(weight_OI.shape)
            for grad_NO, x_NI, weight_OI in zip(
                grad_GNO.contiguous(), x_GNI.contiguous(), weight.chunk(groups, 0), strict=True
            )
        ]
    )


def _convolution_backward(
    grad_NC: Tensor, x_NC: Tensor, weight: Tensor, groups: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        _as_image(grad_NC), _as_image(x_NC), weight[:, :, None, None], None, [1, 1], [0, 0], [1, 1], False, [0, 0],
        groups, [*wanted, False],
    )  # fmt: skip
