"""The process that checks one kernel: `python -m … MODULE DEVICE DTYPE FILE KERNEL`.

Writes one JSON line when the check begins and one with its verdict.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ablate.kernels.selfcheck.verdicts import UNCHECKED, kernels_of
from ablate.store.files import append_json_line


def main(module: str, device_name: str, dtype_name: str, file: str, name: str) -> None:
    """Check a kernel of a module."""
    device, dtype = torch.device(device_name), getattr(torch, dtype_name.removeprefix("torch."))
    try:
        torch.zeros(1, device=device)
        [kernel] = [kernel for kernel in kernels_of(module) if kernel.name == name]
        append_json_line(Path(file), {"begun": name})
        reason, lasting = kernel.failure(device, dtype), True
    except OSError as error:  # a full disk below the compiler's cache, say
        reason, lasting = f"fails with {type(error).__name__}: {error}", False
    except RuntimeError as error:  # no memory on the device, or no context for another process
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(UNCHECKED)
    append_json_line(Path(file), {"kernel": name, "reason": reason, "lasting": lasting})


if __name__ == "__main__":
    main(*sys.argv[1:])
