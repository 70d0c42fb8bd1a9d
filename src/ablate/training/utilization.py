"""Model FLOP utilisation (MFU): operations that training needs, as a share of the device's peak.

Chowdhery et al., 2022 (PaLM), arXiv:2204.02311, appendix B.
"""

from __future__ import annotations

import re

import torch

TRAINING = 3 * 2  # forward once and backward twice as much; two FLOP per multiply-accumulate

# Dense peak in TFLOP/s (no structured sparsity, boost clock), by the name that the driver reports; float16
# with accumulation in float32, as in PyTorch's training. Sources, all NVIDIA's: data sheets of A100 (2021),
# H100 (2023: SXM, PCIe, NVL), H200 (2024) and L40S (2023); "Blackwell Architecture Technical Brief" (2024,
# HGX B200); "Ada GPU Architecture" v2, appendix A (RTX 4090). Figures given with sparsity are halved.
PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    (r"NVIDIA A100-(SXM4|PCIE)-\d+GB|NVIDIA A100 80GB PCIe", {"half": 312, "tf32": 156, "float32": 19.5}),
    (r"NVIDIA H100 80GB HBM3", {"half": 989.4, "tf32": 494.7, "float32": 66.9}),  # SXM
    (r"NVIDIA H100 PCIe", {"half": 756, "tf32": 378, "float32": 51.2}),
    (r"NVIDIA H100 NVL|NVIDIA H200 NVL", {"half": 835.5, "tf32": 417.5, "float32": 60}),
    (r"NVIDIA H200", {"half": 989.4, "tf32": 494.7, "float32": 66.9}),  # SXM
    (r"NVIDIA B200", {"half": 2250, "tf32": 1125, "float32": 75}),
    (r"NVIDIA L40S", {"half": 362.05, "tf32": 183, "float32": 91.6}),
    (r"NVIDIA GeForce RTX 4090", {"half": 165.2, "tf32": 82.6, "float32": 82.6}),
)


def peak(device: str, precision: str, tf32: bool) -> float | None:
    """Peak FLOP/s of one device, or None where it is not known, as of any CPU or part of a card.

    Args:
        device: name that the driver reports.
        precision: recipe.precision.
        tf32: float32 products or convolutions may be computed in TF32.
    """
    kind = "half" if precision in ("bfloat16", "float16") else "tf32" if tf32 else "float32"
    found = next((peaks[kind] for name, peaks in PEAKS if re.fullmatch(name, device)), None)
    return None if found is None else found * 1e12


def mfu(macs: float, images_per_second: float, flops: float | None) -> float | None:
    """Utilisation between 0 and 1, or None where the peak is not known.

    Args:
        macs: multiply-accumulates of one image's forward pass.
        images_per_second: of training.
        flops: peak of all devices together.
    """
    return None if flops is None else round(TRAINING * macs * images_per_second / flops, 4)


def figures(
    device: torch.device, precision: str, macs: float | None, images_per_second: float
) -> dict[str, float]:
    """`mfu` of one device, or nothing where its peak or the operations are not known.

    Args:
        device: of this process.
        precision: recipe.precision.
        macs: multiply-accumulates of one image's forward pass.
        images_per_second: of training, on this device.
    """
    if device.type != "cuda" or macs is None:
        return {}
    found = peak(torch.cuda.get_device_name(device), precision, torch.backends.cuda.matmul.allow_tf32)
    utilization = mfu(macs, images_per_second, found)
    return {} if utilization is None else {"mfu": utilization}
