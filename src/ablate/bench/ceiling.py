"""Ceilings of the device, measured in the same run as what is compared with them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from ablate.bench.timing import interleave

REPETITIONS = 5
PRODUCT = {"cpu": 2048, "cuda": 8192}  # rows and columns of the matrices
COPY = {"cpu": 2**28, "cuda": 2**31}  # bytes, far more than a cache holds


@dataclass(frozen=True)
class Ceiling:
    """FLOP/s of a large matrix product and bytes/s, read and written, of a large copy."""

    flops: float
    bytes: float

    def floor(self, flops: float, moved: float) -> float:
        """Seconds that arithmetic or traffic takes at least, whichever takes longer."""
        return max(flops / self.flops, moved / self.bytes)

    def as_json(self) -> dict[str, float]:
        """Both figures."""
        return asdict(self)


def measure(device: torch.device, dtype: torch.dtype) -> Ceiling:
    """The best of some repetitions; some seconds on a CPU."""
    side = PRODUCT[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(COPY[device.type], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    calls = {"product": lambda: left @ right, "copy": lambda: target.copy_(source)}
    best = {name: min(times.samples) for name, times in interleave(calls, REPETITIONS).items()}
    return Ceiling(2 * side**3 / best["product"], 2 * source.numel() / best["copy"])
