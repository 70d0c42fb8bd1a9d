"""Peaks of devices, and the share of them that training uses."""

from __future__ import annotations

import pytest

from ablate.training import utilization


@pytest.mark.parametrize(
    ("device", "precision", "tf32", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", True, 312),
        ("NVIDIA A100 80GB PCIe", "float32", False, 19.5),
        ("NVIDIA H100 80GB HBM3", "float16", False, 989.4),
        ("NVIDIA H100 PCIe", "bfloat16", False, 756),
        ("NVIDIA H200", "float32", True, 494.7),
        ("NVIDIA B200", "bfloat16", False, 2250),
        ("NVIDIA L40S", "bfloat16", True, 362.05),
        ("NVIDIA GeForce RTX 4090", "bfloat16", True, 165.2),
    ],
)
def test_peaks_of_known_cards(device: str, precision: str, tf32: bool, tflops: float) -> None:
    assert utilization.peak(device, precision, tf32) == tflops * 1e12


@pytest.mark.parametrize(
    "device",
    ["cpu", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GB200"],
)
def test_devices_whose_peak_is_not_known_have_no_utilization(device: str) -> None:
    flops = utilization.peak(device, "bfloat16", True)
    assert flops is None
    assert utilization.mfu(4e9, 1000, flops) is None


@pytest.mark.parametrize(("name", "peaks"), utilization.PEAKS)
def test_a_lower_precision_is_never_slower(name: str, peaks: dict[str, float]) -> None:
    assert peaks["half"] > peaks["tf32"] >= peaks["float32"] > 0, name


def test_utilization_counts_three_passes_of_two_operations() -> None:
    # ResNet-50, 4.1 GMACs: 24.6 GFLOP an image; 3000 images/s are 73.8 TFLOP/s
    assert utilization.mfu(4.1e9, 3000, 989.4e12) == pytest.approx(73.8 / 989.4, abs=1e-4)
