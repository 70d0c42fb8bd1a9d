"""The other ranks of a process group: they train what rank 0 broadcasts, and write nothing.

    python -m ablate.execution.follower PROCESS DEVICE

is how rank 0 starts them on its own machine, with its process number. torchrun and srun start all ranks.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from ablate import plugins
from ablate.execution import child
from ablate.execution.interruption import INTERRUPTION, stoppable
from ablate.execution.place import Place, from_environment
from ablate.execution.process_group import NO_MORE_RUNS, joined
from ablate.store.folder import RunFolder


def follow(place: Place, device: str, store: Any = None) -> None:
    """Train the runs that rank 0 broadcasts, until there are no more.

    Raises:
        KeyboardInterrupt: the group received a request to stop; rank 0 has written a checkpoint.
    """
    from ablate.training.context import RunContext
    from ablate.training.loop import PrunedError, Training
    from ablate.training.progress import Silent

    plugins.load()
    with stoppable() as stop, joined(place, device, store) as group:
        while run := group.broadcast(NO_MORE_RUNS):
            path, config = run
            with suppress(PrunedError):
                Training(RunContext(config, RunFolder(Path(path)), Silent(), group, stop)).run()


def follow_and_end(place: Place, device: str) -> NoReturn:
    """Train the runs that rank 0 broadcasts, then end the program."""
    try:
        follow(place, device)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTION)
    sys.exit(0)


def main() -> None:
    """Entry of a rank that rank 0 started on its own machine."""
    first, device = int(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child.when_parent_ends(first, lambda: os._exit(INTERRUPTION))  # without rank 0 nothing is left to compute
    place = from_environment()
    assert place is not None
    import torch.distributed as dist

    store = dist.TCPStore(place.address, place.port, place.world_size, is_master=False)
    try:
        follow(place, device, store)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTION)


if __name__ == "__main__":
    main()
