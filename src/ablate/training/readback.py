"""Values of a step that are computed on the device and read by the host one step later.

Reading a loss at once (`loss.item()`) makes the host wait until the device has finished the step, and
the device then waits for the host to launch the next one. Here the copy of step n is started when its
work is launched, and read while step n + 1 is in progress.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ablate.training.distributed import Group, Reduction


class Requested(NamedTuple):
    """Requests to be met after a step.

    Attributes:
        stop: a process received a request to stop.
        checkpoint: a checkpoint is due; the first process says so.
        prune: a search asks to end the run; the first process says so.
    """

    stop: bool = False
    checkpoint: bool = False
    prune: bool = False

    def __or__(self, other: Requested) -> Requested:
        """Return the requests of both."""
        return Requested(*(mine or theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True)
class StepReport:
    """Loss and requests of one optimiser step, reduced over all processes.

    Attributes:
        step: number of the step.
        loss: training loss of the step's batch, the mean over all processes.
        requested: requests of any process.
    """

    step: int
    loss: float
    requested: Requested


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

    def push(self, step: int, loss: Tensor, requested: Requested) -> None:
        """Start to reduce and to copy what belongs to a step.

        Args:
            step: number of the step.
            loss: this process's loss, float64, on the device.
            requested: of this process.
        """
        # `full` passes the flags as kernel arguments: a copy from the host would synchronise
        flags = [torch.full_like(loss, float(flag)) for flag in requested]
        values = torch.stack([loss, *flags])
        reduction = self._group.start_all_reduce(values)
        # NCCL reduces on the device, which continues without the host; gloo reduces in a thread of its own
        copied = HostCopy(reduction.result()) if values.is_cuda else reduction
        self._pending.append((step, copied))

    def settle(self, keep: int = 0) -> Iterator[StepReport]:
        """Read the reports of all steps but the latest `keep`, in order."""
        while len(self._pending) > keep:
            step, values = self._pending.popleft()
            loss, *flags = values.tolist()
            yield StepReport(step, loss / self._group.world_size, Requested(*(flag > 0 for flag in flags)))
