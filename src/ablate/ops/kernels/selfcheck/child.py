"""The process that checks some kernels: `python -m … MODULE DEVICE DTYPE FILE KERNEL…`.

Appends one JSON line when a kernel begins and one with its verdict. A failure that breaks the device for this
process ends it with `POISONED`: the verdicts so far hold, and another process checks the rest.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from ablate.ops.kernels.selfcheck.verdicts import POISONED, UNCHECKED, kernels_of
from ablate.store.files import append_json_line


def main(module: str, device_name: str, dtype_name: str, file: str, *names: str) -> None:
    """Check the named kernels of a module in their order."""
    device, dtype = torch.device(device_name), getattr(torch, dtype_name.removeprefix("torch."))
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        _refuse(str(error))
    kernels = {kernel.name: kernel for kernel in kernels_of(module)}
    for name in names:
        append_json_line(Path(file), {"begun": name})
        begun = time.perf_counter()
        try:
            reason = kernels[name].failure(device, dtype)
        except torch.OutOfMemoryError as error:
            _refuse(str(error))
        seconds = round(time.perf_counter() - begun, 2)
        append_json_line(Path(file), {"kernel": name, "reason": reason, "seconds": seconds})
        if reason is not None and _broken(device):
            sys.exit(POISONED)


def _broken(device: torch.device) -> bool:
    """True if an earlier error, such as an illegal access, has ended this process's use of the device."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError:
        return True
    return False


def _refuse(reason: str) -> None:
    print(" ".join(reason.split()), file=sys.stderr)
    sys.exit(UNCHECKED)


if __name__ == "__main__":
    main(*sys.argv[1:])
