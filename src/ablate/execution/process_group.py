"""Several processes for one run: those that torchrun or srun started, or `infra.devices` of our own.

The first process claims runs and tells the others, a run at a time, what they are to train; the others
write nothing. It all happens over one machine's loopback or the cluster's own network, by torch.distributed.

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ablate.errors import UserError
from ablate.execution.interruption import INTERRUPTION, held_back, stoppable
from ablate.launch.slurm import client
from ablate.launch.slurm.client import SlurmError
from ablate.store.folder import FAILED, RunFolder

if TYPE_CHECKING:
    from ablate.execution.execute import Outcome
    from ablate.training.distributed import Group

NO_MORE: tuple[Any, ...] = ()  # in the place of a run folder and its configuration
PATIENCE = 60.0  # seconds that one process outlives another's death, where its network does not notice
SAFE_PATH = ["-P"] if sys.flags.safe_path else []  # as this process: no code from the folder one is in
PORTS = 20000, 40000  # the first, and how many, of which a step of SLURM takes one


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that work together, in torchrun's terms."""

    rank: int
    world: int
    local: int
    neighbors: int  # processes on its machine
    address: str  # of the first process
    port: int

    def variables(self) -> dict[str, str]:
        """As torchrun sets them."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world),
            "LOCAL_RANK": str(self.local),
            "LOCAL_WORLD_SIZE": str(self.neighbors),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def from_environment(variables: Mapping[str, str] = os.environ) -> Place | None:
    """This process's place, if torchrun started it, or srun with more than one task.

    Raises:
        UserError: srun's variables are there, but the first machine of the step is not known.
    """
    if int(variables.get("WORLD_SIZE", "1")) > 1:
        return Place(
            rank=int(variables["RANK"]),
            world=int(variables["WORLD_SIZE"]),
            local=int(variables.get("LOCAL_RANK", "0")),
            neighbors=int(variables.get("LOCAL_WORLD_SIZE", "1")),
            address=variables["MASTER_ADDR"],
            port=int(variables["MASTER_PORT"]),
        )
    if int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        try:
            hosts = client.hosts(variables["SLURM_STEP_NODELIST"])
        except SlurmError as error:
            raise UserError(f"where the first process runs is not known: {error}", "use torchrun") from error
        step = 7 * int(variables["SLURM_JOB_ID"]) + int(variables.get("SLURM_STEP_ID", "0"))
        return Place(
            rank=int(variables["SLURM_PROCID"]),
            world=int(variables["SLURM_STEP_NUM_TASKS"]),
            local=int(variables["SLURM_LOCALID"]),
            neighbors=-(-int(variables["SLURM_STEP_NUM_TASKS"]) // len(hosts)),
            address=hosts[0],
            port=PORTS[0] + step % PORTS[1],
        )
    return None


@contextmanager
def group_for(infra: Mapping[str, Any]) -> Iterator[Group]:
    """The group that computes a run: this process alone, or with others that are started on this machine.

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
    others = _Others(rest, infra["device"])
    try:
        with _joined(first, infra["device"], store) as group:
            yield group
            group.told(NO_MORE)
        others.wait()
    except Exception as error:
        if died := others.died():
            raise RuntimeError(f"{died}; what it said is in output.log, or printed above") from error
        raise
    finally:
        others.end()


def run(
    place: Place,
    device: str,
    runs: Mapping[Path, dict[str, Any]],
    announce: Callable[[str], None],
    report: Callable[[str, Outcome], None] = lambda signature, outcome: None,
) -> dict[str, Outcome]:
    """Runs one after the other, each by all processes that torchrun or srun started; this one is the first.

    It ends with the first run that fails or is claimed by another process: the others have ended with it.

    Args:
        place: of this process.
        device: infra.device.
        runs: configurations by run folder.
        announce, report: called at the start and at the end of each.
    """
    from ablate.execution.execute import SUPERSEDED, execute

    outcomes: dict[str, Outcome] = {}
    with _joined(place, device) as group:
        for path, config in runs.items():
            announce(path.name)
            outcome = outcomes[path.name] = execute(path, config, group=group)
            report(path.name, outcome)
            if outcome.state in (FAILED, SUPERSEDED):
                return outcomes
        group.told(NO_MORE)
    return outcomes


def follow(place: Place, device: str, store: Any = None) -> None:
    """Train what the first process says, until it says that there is no more.

    Raises:
        KeyboardInterrupt: the group was asked to stop; the first process has written a checkpoint.
    """
    from ablate.training.loop import Hooks, Training
    from ablate.training.progress import Silent

    with stoppable() as stop, _joined(place, device, store) as group:
        while told := group.told(NO_MORE):
            path, config = told
            Training(config, RunFolder(Path(path)), Silent(), Hooks(stop=stop), group).run()


def follow_and_end(place: Place, device: str) -> NoReturn:
    """What a process does that is not the first. Ends the program as the runs end."""
    try:
        follow(place, device)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTION)
    sys.exit(0)


class _Others:
    """The processes of a group but the first, which has started them."""

    def __init__(self, places: list[Place], device: str) -> None:
        self.ended = threading.Event()
        with held_back():
            self.processes = [
                subprocess.Popen(
                    [
                        sys.executable,
                        *SAFE_PATH,
                        "-m",
                        "ablate.execution.process_group",
                        str(os.getpid()),
                        device,
                    ],
                    env={**os.environ, **place.variables()},
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    process_group=0,  # Ctrl-C reaches the first process only
                )
                for place in places
            ]
        threading.Thread(target=self._watch, daemon=True).start()

    def died(self) -> str | None:
        """Which of them ended unasked, and how."""
        time.sleep(0.5)  # a connection breaks before its process is gone
        for rank, process in enumerate(self.processes, start=1):
            code = process.poll()
            if code is not None and code not in (0, INTERRUPTION):
                how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                return f"process {rank} of those that computed the run died ({how})"
        return None

    def wait(self) -> None:
        """Until they have ended by themselves."""
        self.ended.set()
        for process in self.processes:
            process.wait(PATIENCE)

    def end(self) -> None:
        """Now, if they have not."""
        self.ended.set()
        for process in self.processes:
            process.kill()
            process.wait()

    def _watch(self) -> None:
        """NCCL waits for a dead process for minutes: this one then ends, and its launcher says so."""
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


@contextmanager
def _joined(place: Place, device: str, store: Any = None) -> Iterator[Group]:
    """This process in its group; without a store, by the variables that torchrun sets."""
    import torch

    from ablate.training.device import resolve_device
    from ablate.training.distributed import Group, joined

    if store is None:
        for name, value in place.variables().items():
            os.environ.setdefault(name, value)
    found = resolve_device(device, place.local)
    if str(found) == "cuda":
        found = torch.device("cuda", 0)
    with joined(Group(place.rank, place.world, place.local, place.neighbors, found), store) as group:
        yield group


def main() -> None:
    """Entry of the other processes on this machine: `python -m MODULE PROCESS DEVICE`, started by rank 0."""
    first, device = int(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(first,), daemon=True).start()
    place = from_environment()
    assert place is not None
    import torch.distributed as dist

    store = dist.TCPStore(place.address, place.port, place.world, is_master=False)
    try:
        follow(place, device, store)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTION)


def _end_with(first: int) -> None:
    """Without the first process there is nothing to compute, and no one to tell."""
    while os.getppid() == first:
        time.sleep(1)
    os._exit(INTERRUPTION)


if __name__ == "__main__":
    main()
