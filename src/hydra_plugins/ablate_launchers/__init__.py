"""Entries of the launchers and of the search: Hydra looks for plugins in this namespace only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin

from ablate import plugins
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


class ConfigurationOfPlugins(SearchPathPlugin):
    """Folders `conf` of the plug-ins that are loaded; a file of this package counts before theirs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders; there are none in an application that is not ours."""
        for folder in plugins.conf_dirs():
            search_path.append(provider="ablate-plugin", path=f"file://{folder}")


for _launcher in (InlineLauncher, LocalLauncher, SlurmLauncher):
    _node = {"_target_": f"{__name__}.{_launcher.__name__}"}
    ConfigStore.instance().store(group="hydra/launcher", name=_launcher.name, node=_node, provider="ablate")
