"""Several processes that compute one run together, each with its share of every batch.

A run means the same however many processes compute it: a network draws its randomness (drop path, dropout)
for the whole batch, batch norms see the whole batch, and figures are sums over all processes. One process
and several differ in rounding only. `DistributedDataParallel` averages the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from ablate.data import Shard
from ablate.errors import UserError
from ablate.tasks.contract import BatchCount, RegionNorm

T = TypeVar("T")
CPU = torch.device("cpu")


class Reduction:
    """An all-reduce in progress. Read several in the order in which they were started."""

    def __init__(self, values: Tensor, work: dist.Work | None) -> None:
        self._values, self._work = values, work

    def result(self) -> Tensor:
        """The reduced values. The host waits for gloo; with NCCL only the device's stream does."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._values

    def tolist(self) -> list[float]:
        """The reduced values on the host."""
        found: list[float] = self.result().tolist()
        return found


@dataclass(frozen=True)
class Group:
    """The processes of one run, as this process sees them, and their collective operations.

    Every process has to make the same calls in the same order.

    Attributes:
        rank: number of this process; rank 0 claims the run, writes its files and reports.
        world_size: number of processes.
        local_rank: number of this process on its machine, and of its card.
        local_world_size: number of processes on its machine.
        device: device of the values that are exchanged: the card for NCCL, else the CPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """True on rank 0, which writes and reports."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """This process's share of every batch."""
        return Shard(self.rank, self.world_size)

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Sum each value over all processes, in float64."""
        if self.world_size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def gather(self, values: list[T]) -> list[T]:
        """Return the values of all processes, those of rank 0 first."""
        if self.world_size == 1:
            return values
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, values)
        return [value for part in found for value in part]

    def start_all_reduce(self, values: Tensor) -> Reduction:
        """Start to sum `values` (on `device`) over all processes, in place."""
        if self.world_size == 1:
            return Reduction(values, None)
        return Reduction(values, dist.all_reduce(values, async_op=True))

    def broadcast(self, value: T) -> T:
        """Broadcast `value` from rank 0; the values of the other ranks are ignored."""
        if self.world_size == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, device=self.device)
        return values[0]

    def share(self, network: nn.Module) -> nn.Module:
        """Make batch norm, drop path and dropout work on the whole batch of all processes, in place.

        Raises:
            UserError: a kind of batch norm that cannot be shared.
        """
        return network if self.world_size == 1 else _shared(network, self)

    def parallel(self, network: nn.Module) -> nn.Module:
        """Wrap the network so that its gradients are averaged over the processes (DDP)."""
        if self.world_size == 1:
            return network
        # Batch norms see the whole batch, so that every process has the same running statistics: there is
        # nothing to broadcast before each forward pass.
        return DistributedDataParallel(network, gradient_as_bucket_view=True, broadcast_buffers=False)

    def without_averaging(self, network: nn.Module) -> AbstractContextManager[None]:
        """Accumulate gradients locally inside the block (DDP no_sync)."""
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


SOLO = Group()


@contextmanager
def joined(group: Group, store: dist.Store | None = None) -> Iterator[Group]:
    """Connect the processes of a group until the block ends.

    Args:
        group: the processes, as this one sees them.
        store: rendezvous of the processes; by torchrun's environment variables if None.
    """
    if group.device.type == "cuda":
        torch.cuda.set_device(group.device)
    backend = "nccl" if group.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=group.rank, world_size=group.world_size)
    try:
        yield group
    finally:
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """Sum over all processes. The gradient is summed over them too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the batch of all processes on a CPU; PyTorch's SyncBatchNorm needs CUDA."""

    world_size: int

    def _check_input_dim(self, input: Tensor) -> None:
        """(B, C, …)."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, …) → the same shape."""
        if not self.training:
            return super().forward(input)
        axes, shape = [0, *range(2, input.ndim)], (1, -1, *[1] * (input.ndim - 2))
        count = self._count(input[:, 0])
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = _Sum.apply(x.sum(axes)) / count
        x = x - mean.view(shape)
        variance = _Sum.apply(x.square().sum(axes)) / count
        self._update_statistics(mean.detach(), variance.detach() * (count / max(count - 1, 1)))
        x = x * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x.to(input.dtype)

    def _count(self, values: Tensor) -> Any:
        """Values of a channel in the whole batch; every process has as many."""
        return self.world_size * values.numel()

    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(variance.to(self.running_var), momentum)


class SharedRegionNorm(SharedBatchNorm):
    """Batch norm over regions, of which every process has its own number."""

    def _count(self, values: Tensor) -> Any:
        count = torch.tensor(float(values.numel()), dtype=torch.float64, device=values.device)
        dist.all_reduce(count)
        return count


class SharedBatchCount(BatchCount):
    """The mean number of a process."""

    world_size: int

    def forward(self, count: int, device: torch.device) -> Tensor:
        """Return the number in the whole batch by that of processes."""
        total = torch.tensor(float(count), dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return total.clamp(min=1).float() / self.world_size


class SharedDropPath(DropPath):
    """timm's drop path, with the random draws of the whole batch."""

    shard: Shard

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) → the same shape."""
        if self.drop_prob == 0.0 or not self.training:
            return x
        batch, keep = len(x) * self.shard.world, 1 - self.drop_prob
        kept = x.new_empty((batch, *[1] * (x.ndim - 1))).bernoulli_(keep)
        if keep > 0.0 and self.scale_by_keep:
            kept.div_(keep)
        return x * kept[self.shard.rows(batch)]


class SharedDropout(nn.Dropout):
    """PyTorch's dropout, with the random draws of the whole batch."""

    shard: Shard

    def forward(self, input: Tensor) -> Tensor:
        """(B, …) → the same shape."""
        if self.p == 0.0 or not self.training:
            return input
        batch = len(input) * self.shard.world
        kept = F.dropout(input.new_ones((batch, *input.shape[1:])), self.p)
        return input * kept[self.shard.rows(batch)]


class SharedDropout2d(nn.Dropout2d):
    """PyTorch's dropout of whole channels, with the random draws of the whole batch."""

    shard: Shard

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        if self.p == 0.0 or not self.training:
            return input
        batch = len(input) * self.shard.world
        kept = F.dropout2d(input.new_ones((batch, input.shape[1], 1, 1)), self.p)
        return input * kept[self.shard.rows(batch)]


def _shared(network: nn.Module, group: Group) -> nn.Module:
    for name, child in network.named_children():
        setattr(network, name, _shared(child, group))
    if type(network) in (nn.BatchNorm1d, nn.BatchNorm2d, RegionNorm):
        if group.device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(network)
        kind = SharedRegionNorm if type(network) is RegionNorm else SharedBatchNorm
        return _as_class(network, kind, world_size=group.world_size)
    if type(network) is BatchCount:
        return _as_class(network, SharedBatchCount, world_size=group.world_size)
    if type(network) in SHARED:
        return _as_class(network, SHARED[type(network)], shard=group.shard)
    if isinstance(network, (_BatchNorm, _DropoutNd)):
        raise UserError(
            f"a network with {type(network).__name__} cannot be trained by several processes",
            "use infra.devices=1",
        )
    return network


SHARED: dict[type[nn.Module], type[nn.Module]] = {
    DropPath: SharedDropPath,
    nn.Dropout: SharedDropout,
    nn.Dropout2d: SharedDropout2d,
}


def _as_class(module: nn.Module, into: type[nn.Module], **attributes: Any) -> nn.Module:
    """Change a module's class in place, keeping its parameters, and set the attributes of the new class."""
    module.__class__ = into
    for name, value in attributes.items():
        setattr(module, name, value)
    return module
