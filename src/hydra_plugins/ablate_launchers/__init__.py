"""Entries of the launchers and of the search: Hydra looks for plugins in this namespace only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore

from ablate.launch.hydra_launcher import StudyLauncher
from ablate.launch.search import sweeper

if TYPE_CHECKING:
    from ablate.launch.study import Launch


class _NamedLauncher(StudyLauncher):
    """A launcher of `ablate.cli.launchers`.

    Attributes:
        name: by which the launcher is chosen.
    """

    name: str

    def launch_function(self) -> Launch:
        """Return the function of this name."""
        from ablate.cli.launchers import LAUNCHERS

        return LAUNCHERS[self.name]


class InlineLauncher(_NamedLauncher):
    """`hydra/launcher=inline`: one run after the other in this process."""

    name = "inline"


class LocalLauncher(_NamedLauncher):
    """`hydra/launcher=local`: worker processes, infra.launcher.workers of them."""

    name = "local"


class SlurmLauncher(_NamedLauncher):
    """`hydra/launcher=slurm`: job arrays; their settings are infra.launcher's."""

    name = "slurm"
    returns_at_once = True


class OptunaSweeper(sweeper.Search):
    """`hydra/sweeper=optuna`: a search of hyper-parameters."""


for _launcher in (InlineLauncher, LocalLauncher, SlurmLauncher):
    _node = {"_target_": f"{__name__}.{_launcher.__name__}"}
    ConfigStore.instance().store(group="hydra/launcher", name=_launcher.name, node=_node, provider="ablate")
