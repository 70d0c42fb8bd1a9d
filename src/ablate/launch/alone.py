"""The launchers `local` and `slurm` may not be used inside torchrun or a multi-task srun."""

from __future__ import annotations

from ablate.errors import UserError
from ablate.execution.place import from_environment


def check_alone(launcher: str) -> None:
    """Refuse a launcher where torchrun or srun has started several processes.

    Raises:
        UserError: says what to do instead.
    """
    if (place := from_environment()) is not None:
        raise UserError(
            f"hydra/launcher={launcher} in {place.world_size} processes that torchrun or srun started",
            "these compute runs themselves: leave hydra/launcher out; or start one process, and let "
            "infra.devices say how many compute a run together",
        )
