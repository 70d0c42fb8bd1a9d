"""Every random draw as a function of the run's seed, its purpose and the epoch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def derive(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed that differs by purpose and epoch."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int, purpose: str, epoch: int = 0) -> None:
    """Seed the generators of Python, NumPy (timm's mixup) and PyTorch (drop-path, initial weights).

    Done at the start of every epoch, so that an epoch does not depend on what ran before it. A run
    that resumes within an epoch restores `generators` from its checkpoint.
    """
    derived = derive(seed, purpose, epoch)
    random.seed(derived)
    np.random.seed(derived % 2**32)  # timm's Mixup draws from NumPy's global generator
    torch.manual_seed(derived)


def generators(device: torch.device) -> dict[str, Any]:
    """Return the states of the generators, in types that `torch.load(weights_only=True)` reads."""
    kind, keys, position, has_normal, normal = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, np.int64)), position, has_normal, normal],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_generators(state: Mapping[str, Any], device: torch.device) -> None:
    """Set the generators to the states that `generators` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_normal, normal = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_normal, normal))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
