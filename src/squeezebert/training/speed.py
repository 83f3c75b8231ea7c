"""What pretraining costs in floating-point operations, and how many the device could do."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

import torch

from squeezebert.model.config import ModelConfig
from squeezebert.model.cost import table

_BF16_PEAK = {
    "B200": 2250e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Dense bf16 FLOP/s by words of the GPU's name, from the vendor's data sheets; the first that fits counts."""


class Peak(NamedTuple):
    """What a device can do."""

    flops: float
    """Floating-point operations a second, of one device in one number format."""
    origin: str
    """Where the number comes from."""


def training_flops(config: ModelConfig, *, length: int, masking_rate: float, mlm_only: bool) -> float:
    """FLOP of forward and backward pass over one row.

    Two for each multiply-add of the matrix products, three times over: once forward, twice backward. The masked
    language model counts for masked tokens only; what gradient checkpointing computes again does not count.

    Args:
        config: The model's sizes.
        length: Tokens of the row.
        masking_rate: Share of them that is masked.
        mlm_only: Whether pooler and sentence-order head are idle.
    """
    multiply_adds = 0.0
    for part in table(config, length, "masked_lm" if mlm_only else "pretraining"):
        if part.name == "masked language model":
            multiply_adds += masking_rate * part.multiply_adds
        elif not part.name.startswith("layer: ") and not (mlm_only and part.name == "pooler"):
            multiply_adds += part.multiply_adds
    return 6.0 * multiply_adds


def peak_flops(device: torch.device, precision: str) -> Peak:
    """FLOP/s of one device: a GPU's by the vendor's data sheet where it is known, else what a large product reaches."""
    if device.type == "cuda" and precision == "bf16":
        name = torch.cuda.get_device_name(device)
        for part, flops in _BF16_PEAK.items():
            # Whole words: an L40 is no L4.
            if re.search(rf"\b{part}\b", name):
                return Peak(flops, f"data sheet of {name}")
    size, dtype = (1024, 8192)[device.type == "cuda"], {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    # The best of several: other processes may get in the way.
    rates = []
    for _ in range(7):
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        rates.append(2.0 * size**3 / (time.perf_counter() - start))
    return Peak(max(rates), f"measured with a product of {size} x {size} matrices in {precision}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
