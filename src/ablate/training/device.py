"""Device of a run, and the settings of PyTorch that make results bit-reproducible."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.utils.deterministic

from ablate import kernels
from ablate.errors import UserError
from ablate.kernels.dispatch import hindrance

if TYPE_CHECKING:
    from ablate.training.distributed import Group


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of a name: `auto` is CUDA where available, other names are PyTorch's.

    Args:
        name: infra.device.
        local_rank: number of this process among those that compute a run on this machine, one card each.

    Raises:
        UserError: not a device, or not available here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    way_out = "use auto, cpu, cuda or cuda:1; `ablate doctor` says what is here"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"infra.device={name} is not a device", way_out) from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"infra.device={name}: runs are computed on cpu or cuda", way_out)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"infra.device={name}: {torch.cuda.device_count()} CUDA devices are here", way_out)
    if name == "cuda" and local_rank:
        return torch.device(
            "cuda", local_rank % torch.cuda.device_count()
        )  # SLURM may show one process one card
    return device


def name(device: torch.device) -> str:
    """Name of the card, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def prepare(device: torch.device, infra: Mapping[str, Any], precision: str, group: Group) -> None:
    """Set up this process to compute one run.

    Args:
        device: of this process.
        infra: `kernels` and `tf32` are read.
        precision: recipe.precision, in which the kernels will be needed beside float32.
        group: the processes of the run; the first one of each machine checks the kernels for the others.
    """
    kernels.use(infra["kernels"])
    deterministic_algorithms(device)
    float32_precision(infra["tf32"])
    if device.type == "cuda" and infra["kernels"] == "auto" and hindrance("cuda") is None:
        _check_kernels(device, precision, group)


def deterministic_algorithms(device: torch.device) -> None:
    """Use algorithms that give the same bits for the same input.

    PyTorch makes the backward passes of its fused attention deterministic only where it may raise errors
    (`warn_only=False`), and then many other operations raise them. On CUDA attention outside the operators,
    such as VOLO's class attention, is therefore computed from its parts.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first use
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that it has not written; filling it first takes 5 % of a micro host's step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    fused = device.type != "cuda"
    torch.backends.cuda.enable_flash_sdp(fused)
    torch.backends.cuda.enable_mem_efficient_sdp(fused)
    torch.backends.cuda.enable_cudnn_sdp(fused)


def float32_precision(tf32: bool | None) -> None:
    """Compute float32 products and convolutions on CUDA alike: exactly, or with the 10 bits of TF32.

    By default PyTorch uses TF32 for convolutions only, so that operators made of convolutions would be less
    exact and faster than those made of matrix products. None leaves it so, as earlier versions did.
    """
    if tf32 is None:
        return
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def _check_kernels(device: torch.device, precision: str, group: Group) -> None:
    """Run the self-check once per machine; the other processes wait and read its verdicts."""
    from ablate.kernels import selfcheck

    dtypes = dict.fromkeys((torch.float32, getattr(torch, precision)))
    if group.local_rank == 0:
        selfcheck.prepare(device, dtypes)
    group.all_reduce_sum(0.0)  # a barrier: the other processes wait, then read
