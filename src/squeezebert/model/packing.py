"""A grouped layer's weight as oneDNN's kernels read it, laid out once in place of once a call.

At 32 tokens, laying the weight out is half of a layer's time. oneDNN has several layouts and chooses by the number of
tokens; meeting another than it chose costs it a hundred times the product. So each number is asked for its layout, and
each layout, of two or three in all, is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST_TOKENS = 1024
"""Tokens from which on laying out is next to nothing beside the product."""


def can_pack(weight: Tensor) -> bool:
    """Whether the weight can be packed: fp32 on a CPU, by a torch with oneDNN."""
    has_onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    known = has_onednn and hasattr(torch.ops.mkldnn, "_get_mkldnn_serialized_md")
    return known and weight.device.type == "cpu" and weight.dtype == torch.float32


class PackedWeight:
    """Packed copies of one weight.

    Args:
        weight: ``[out, in / groups]``; changes after packing are not seen.
        groups: Blocks of channels.
    """

    def __init__(self, weight: Tensor, groups: int) -> None:
        self._weight = weight.detach()
        self._groups = groups
        self._by_tokens: dict[int, Tensor] = {}
        self._by_layout: dict[bytes, Tensor] = {}

    def product(self, x_NC: Tensor, bias: Tensor) -> Tensor:
        """Apply the layer to 1..1024 tokens: ``[N, in]`` to ``[N, out]``."""
        tokens = x_NC.shape[0]
        packed = self._by_tokens.get(tokens)
        if packed is None:
            packed = self._by_tokens[tokens] = self._pack(tokens)
        image = x_NC.contiguous()[None, :, None, :].permute(0, 3, 1, 2)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            image, packed, bias, [0, 0], [1, 1], [1, 1], self._groups, "none", [], ""
        )
        return y.permute(0, 2, 3, 1).reshape(tokens, -1)

    def _pack(self, tokens: int) -> Tensor:
        kernel = self._weight[:, :, None, None].contiguous().to_mkldnn()
        image = [1, self._weight.shape[1] * self._groups, tokens, 1]
        packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
            kernel, [0, 0], [1, 1], [1, 1], self._groups, image
        )
        layout = torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy().tobytes()
        return self._by_layout.setdefault(layout, packed)
