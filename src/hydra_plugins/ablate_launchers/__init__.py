"""Entries of the launchers and of the search: Hydra looks for plugins in this namespace only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore

from ablate.launch import launchers, search

if TYPE_CHECKING:
    from rich.console import Console

    from ablate.execution.execute import Outcome
    from ablate.launch.submission import Submission


class InlineLauncher(launchers.StudyLauncher):
    """`hydra/launcher=inline`: one run after the other in this process."""

    def run(self, submission: Submission, console: Console) -> dict[str, Outcome]:
        """Run what is ready."""
        return launchers.run_inline(submission, console)


class LocalLauncher(launchers.StudyLauncher):
    """`hydra/launcher=local`: worker processes, infra.launcher.workers of them."""

    def run(self, submission: Submission, console: Console) -> dict[str, Outcome]:
        """Run what is ready."""
        return launchers.run_in_workers(submission, console)


class SlurmLauncher(launchers.StudyLauncher):
    """`hydra/launcher=slurm`: job arrays; their settings are infra.launcher's."""

    returns_at_once = True

    def run(self, submission: Submission, console: Console) -> dict[str, Outcome]:
        """Hand in what is ready."""
        return launchers.hand_in(submission, console)


class OptunaSweeper(search.Search):
    """`hydra/sweeper=optuna`: a search of hyper-parameters."""


LAUNCHERS = {"inline": InlineLauncher, "local": LocalLauncher, "slurm": SlurmLauncher}
for _name, _launcher in LAUNCHERS.items():
    _node = {"_target_": f"{__name__}.{_launcher.__name__}"}
    ConfigStore.instance().store(group="hydra/launcher", name=_name, node=_node, provider="ablate")


def publish_sweeper() -> None:
    """Register `hydra/sweeper=optuna`.

    Called once Hydra has loaded all plugins: hydra-optuna-sweeper, where it is installed, has the same name.
    """
    store = ConfigStore.instance()
    node = {**search.NODE, "_target_": f"{__name__}.{OptunaSweeper.__name__}"}
    store.store(group="hydra/sweeper", name="optuna", node=node, provider="ablate")
    for name, sampler in search.SAMPLERS.items():
        store.store(
            group="hydra/sweeper/sampler",
            name=name,
            node={"_target_": f"optuna.samplers.{sampler}", "seed": None},
            provider="ablate",
        )
