from __future__ import annotations

import pytest
import torch

from squeezebert.training.speed import peak_flops


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
    ],
)
def test_peak_of_a_known_gpu_is_its_data_sheet_s(monkeypatch: pytest.MonkeyPatch, name: str, flops: float) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    peak = peak_flops(torch.device("cuda"), "bf16")
    assert peak.flops == flops
    assert peak.origin == f"data sheet of {name}"


def test_another_gpu_with_a_like_name_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without data sheet a product is timed, which needs the GPU itself."""

    def timed(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(torch, "randn", timed)
    for name in ("NVIDIA L40", "NVIDIA A10G"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        with pytest.raises(ZeroDivisionError):
            peak_flops(torch.device("cuda"), "bf16")


def test_peak_of_a_cpu_is_measured() -> None:
    peak = peak_flops(torch.device("cpu"), "fp32")
    assert peak.flops > 1e8
    assert peak.origin.startswith("measured with a product of 1024 x 1024 matrices in fp32")
