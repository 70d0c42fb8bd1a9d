"""Every random draw as a function of the run's seed, its purpose and the epoch."""

from __future__ import annotations

import hashlib
import os
import random

import numpy as np
import torch


def derive(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed that differs by purpose and epoch."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int, purpose: str, epoch: int = 0) -> None:
    """Seed the generators of Python, NumPy (timm's mixup) and PyTorch (drop-path, initial weights).

    Done at the start of every epoch, so that an epoch does not depend on what ran before it: a
    resumed run draws what an uninterrupted one would.
    """
    derived = derive(seed, purpose, epoch)
    random.seed(derived)
    np.random.seed(derived % 2**32)  # timm's Mixup draws from NumPy's global generator
    torch.manual_seed(derived)


def deterministic_algorithms() -> None:
    """Ask PyTorch for algorithms that give the same bits for the same input."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first use
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
