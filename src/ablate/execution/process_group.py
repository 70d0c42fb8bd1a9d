"""Several processes for one run: those that torchrun or srun started, or `infra.devices` of our own.

Rank 0 claims runs and broadcasts, one run at a time, what the other ranks are to train (`follower`); they
write nothing. All of it happens over the loopback of one machine or the cluster's own network, by
torch.distributed.

    torchrun --nproc-per-node 8 -m ablate train op=elsa
    srun --nodes 2 --ntasks-per-node 8 ablate train op=elsa
    ablate train op=elsa infra.devices=8
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ablate.errors import UserError
from ablate.execution import child
from ablate.execution.interruption import INTERRUPTION, held_back
from ablate.execution.place import Place

if TYPE_CHECKING:
    from ablate.training.distributed import Group

NO_MORE_RUNS: tuple[Any, ...] = ()  # broadcast instead of a run folder and its configuration
PATIENCE = 60.0  # seconds that one process outlives another's death, where its network does not notice


@contextmanager
def group_for(infra: Mapping[str, Any]) -> Iterator[Group]:
    """The processes that compute a run: this one alone, or with others that are started on this machine.

    Raises:
        UserError: fewer cards than processes.
        RuntimeError: one of the others died; says how.
    """
    from ablate.training.distributed import SOLO

    devices = infra["devices"]
    if devices == 1:
        yield SOLO
        return
    _check_cards(infra)
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", 0, devices, is_master=True, wait_for_workers=False)
    first, *rest = (Place(rank, devices, rank, devices, "127.0.0.1", store.port) for rank in range(devices))
    followers = _Followers(rest, infra["device"])
    try:
        with joined(first, infra["device"], store) as group:
            yield group
            group.broadcast(NO_MORE_RUNS)
        followers.wait()
    except Exception as error:
        if died := followers.died():
            raise RuntimeError(f"{died}; its output is in output.log, or printed above") from error
        raise
    finally:
        followers.end()


@contextmanager
def joined(place: Place, device: str, store: Any = None) -> Iterator[Group]:
    """Connect this process to its group until the block ends.

    Args:
        place: of this process.
        device: infra.device.
        store: rendezvous of the processes; by the variables that torchrun sets if None.
    """
    import torch

    from ablate.training import distributed
    from ablate.training.device import resolve_device

    if store is None:
        for name, value in place.variables().items():
            os.environ.setdefault(name, value)
    found = resolve_device(device, place.local_rank)
    if str(found) == "cuda":
        found = torch.device("cuda", 0)
    group = distributed.Group(place.rank, place.world_size, place.local_rank, place.local_world_size, found)
    with distributed.joined(group, store):
        yield group


class _Followers:
    """Ranks 1 and up on this machine, which rank 0 has started."""

    def __init__(self, places: list[Place], device: str) -> None:
        self.ended = threading.Event()
        with held_back():
            self.processes = [
                subprocess.Popen(
                    child.command("ablate.execution.follower", device),
                    env={**os.environ, **place.variables()},
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    process_group=0,  # Ctrl-C reaches rank 0 only
                )
                for place in places
            ]
        threading.Thread(target=self._watch, daemon=True).start()

    def died(self) -> str | None:
        """Return which process ended on its own, and how; None if all of them are alive or interrupted."""
        time.sleep(0.5)  # a connection breaks before its process is gone
        for rank, process in enumerate(self.processes, start=1):
            code = process.poll()
            if code is not None and code not in (0, INTERRUPTION):
                how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                return f"process {rank} of those that computed the run died ({how})"
        return None

    def wait(self) -> None:
        """Wait until they have ended by themselves."""
        self.ended.set()
        for process in self.processes:
            process.wait(PATIENCE)

    def end(self) -> None:
        """End them now, if they have not ended."""
        self.ended.set()
        for process in self.processes:
            process.kill()
            process.wait()

    def _watch(self) -> None:
        """End this process some time after a follower died: NCCL would wait for it for minutes."""
        while not self.ended.wait(1.0):
            if (died := self.died()) is not None and not self.ended.wait(PATIENCE):
                print(died, file=sys.stderr, flush=True)
                os._exit(1)


def _check_cards(infra: Mapping[str, Any]) -> None:
    import torch

    from ablate.training.device import resolve_device

    cards = torch.cuda.device_count()
    if resolve_device(infra["device"]).type == "cuda" and cards < infra["devices"]:
        raise UserError(
            f"infra.devices={infra['devices']}: {cards} CUDA devices are here",
            f"use infra.devices={cards}, or infra.device=cpu",
        )
