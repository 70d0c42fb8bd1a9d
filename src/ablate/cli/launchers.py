"""The launchers by name, for `train` and `retry` and for Hydra's entries."""

from __future__ import annotations

from functools import partial

from ablate.cli.status import watch
from ablate.launch import inline
from ablate.launch.local import launch as local
from ablate.launch.slurm import launch as slurm
from ablate.launch.study import Launch

LAUNCHERS: dict[str, Launch] = {
    "inline": inline.launch,
    "local": local.launch,
    "slurm": partial(slurm.launch, watch=watch),
}
