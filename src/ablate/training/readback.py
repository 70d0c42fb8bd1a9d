"""Values of a step that are computed on the device and read by the host one step later.

Reading a loss at once (`loss.item()`) makes the host wait until the device has finished the step, and
the device then waits for the host to launch the next one. Here the copy of step n is started when its
work is launched, and read while step n + 1 is in progress.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ablate.training.distributed import Group, Reduction


@dataclass(frozen=True)
class StepReport:
    """Loss and requests of one optimiser step, reduced over all processes.

    Attributes:
        step: number of the step.
        loss: training loss of the step's batch, the mean over all processes.
        stop: True if any process received a request to stop during the step.
        checkpoint: True if the first process wants a checkpoint.
        prune: True if a search asked the first process to end the run.
    """

    step: int
    loss: float
    stop: bool
    checkpoint: bool
    prune: bool = False


class HostCopy:
    """A small tensor on its way to the host; reading it waits for its own step only."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = values
        if values.is_cuda:
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))

    def tolist(self) -> list[float]:
        """Wait for the copy and return the values."""
        if self._event is not None:
            self._event.synchronize()
        found: list[float] = self._values.tolist()
        return found


class StepReports:
    """The reports of the latest steps, in order, with one all-reduce per step.

    Every process of a group makes the same calls in the same order.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._pending: deque[tuple[int, Reduction | HostCopy]] = deque()

    def push(self, step: int, loss: Tensor, *, stop: bool, checkpoint: bool, prune: bool = False) -> None:
        """Start to reduce and to copy what belongs to a step.

        Args:
            step: number of the step.
            loss: this process's loss, float64, on the device.
            stop: this process received a request to stop.
            checkpoint: a checkpoint is due; only the first process may say so.
            prune: a search asks to end the run; only the first process may say so.
        """
        # `full` passes the flags as kernel arguments: a copy from the host would synchronise
        flags = [torch.full_like(loss, float(flag)) for flag in (stop, checkpoint, prune)]
        values = torch.stack([loss, *flags])
        reduction = self._group.start_all_reduce(values)
        # NCCL reduces on the device, which continues without the host; gloo reduces in a thread of its own
        copied = HostCopy(reduction.result()) if values.is_cuda else reduction
        self._pending.append((step, copied))

    def settle(self, keep: int = 0) -> Iterator[StepReport]:
        """Read the reports of all steps but the latest `keep`, in order."""
        while len(self._pending) > keep:
            step, values = self._pending.popleft()
            loss, stop, checkpoint, prune = values.tolist()
            yield StepReport(step, loss / self._group.world_size, stop > 0, checkpoint > 0, prune > 0)
