"""Random numbers that depend on what they are for, and never on what ran before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The generator on the CPU for epoch `epoch` of a run with this seed."""
    [state] = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@contextmanager
def global_generators_seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch's CPU, and put them back afterwards.

    For torchvision's and timm's transforms, which draw from all three.
    """
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the accelerator's too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])
