"""Rank of this process among those that torchrun or srun started, by their environment variables."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from ablate.errors import UserError

PORTS = 20000, 40000  # the first port, and how many there are, of which a step of SLURM takes one
SECONDS = 20.0  # that scontrol may take


@dataclass(frozen=True)
class Place:
    """Rank and rendezvous of a process among those that compute a run together, in torchrun's terms."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str  # of rank 0
    port: int

    def variables(self) -> dict[str, str]:
        """Return the environment variables that torchrun sets."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def from_environment(variables: Mapping[str, str] = os.environ) -> Place | None:
    """Return this process's place, if torchrun started it, or srun with more than one task.

    Raises:
        UserError: srun's variables are set, but the first machine of the step is not known.
    """
    if int(variables.get("WORLD_SIZE", "1")) > 1:
        return Place(
            rank=int(variables["RANK"]),
            world_size=int(variables["WORLD_SIZE"]),
            local_rank=int(variables.get("LOCAL_RANK", "0")),
            local_world_size=int(variables.get("LOCAL_WORLD_SIZE", "1")),
            address=variables["MASTER_ADDR"],
            port=int(variables["MASTER_PORT"]),
        )
    if int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        hosts = _hosts(variables["SLURM_STEP_NODELIST"])
        step = 7 * int(variables["SLURM_JOB_ID"]) + int(variables.get("SLURM_STEP_ID", "0"))
        return Place(
            rank=int(variables["SLURM_PROCID"]),
            world_size=int(variables["SLURM_STEP_NUM_TASKS"]),
            local_rank=int(variables["SLURM_LOCALID"]),
            local_world_size=-(-int(variables["SLURM_STEP_NUM_TASKS"]) // len(hosts)),
            address=hosts[0],
            port=PORTS[0] + step % PORTS[1],
        )
    return None


def _hosts(nodes: str) -> list[str]:
    """Expand SLURM's notation of a list of machines, such as gpu[01-03,7].

    Raises:
        UserError: scontrol does not answer.
    """
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"where rank 0 runs is not known: scontrol: {error}", "use torchrun") from error
    return done.stdout.split()
