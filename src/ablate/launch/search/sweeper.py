"""`hydra/sweeper=optuna`: a search of hyper-parameters by Optuna's samplers and pruners.

Its measure is accuracy or loss on validation images. Trials are runs of the study `study.name`, computed by
any launcher. The search is kept in a journal in the study's folder, which several processes may share; the
same command resumes it. Start reading in `Search.sweep`.
"""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ablate import commands
from ablate.errors import UserError, unknown
from ablate.execution import claim
from ablate.launch.search.pruning import Epochs, watched
from ablate.launch.search.space import Space, read_space
from ablate.store import manifest, metrics
from ablate.store.files import write_json
from ablate.store.folder import PRUNED, RunFolder

if TYPE_CHECKING:
    import optuna

    from ablate.launch.hydra_launcher import StudyLauncher

RECORD = "search.json"  # best trial and failures, in the study's folder
JOURNAL = "search.journal"
HOPELESS = 10  # refused trials before the first valid one: the error is in what they share
SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "gp": "GPSampler",
    "grid": "BruteForceSampler",
}
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"_target_": "optuna.pruners.NopPruner"},
    "median": {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 5, "n_warmup_steps": 0},
    "percentile": {
        "_target_": "optuna.pruners.PercentilePruner",
        "percentile": 25.0,  # the best quarter continues
        "n_startup_trials": 5,
        "n_warmup_steps": 0,
    },
    "halving": {
        "_target_": "optuna.pruners.SuccessiveHalvingPruner",
        "min_resource": 1,
        "reduction_factor": 4,
    },
    "threshold": {
        "_target_": "optuna.pruners.ThresholdPruner",
        "lower": None,
        "upper": None,
        "n_warmup_steps": 0,
    },
    "hyperband": {"_target_": "optuna.pruners.HyperbandPruner", "min_resource": 1, "reduction_factor": 3},
}
NODE: dict[str, Any] = {
    "_recursive_": False,  # sampler and pruner are made when the search is opened
    "defaults": [{"sampler": "tpe"}, {"pruner": "none"}],
    "n_trials": 20,  # in total, including those of earlier commands
    "n_jobs": 2,  # trials at a time
    "metric": None,  # of validation images, e.g. validation_loss; what selects the checkpoint if null
    "direction": None,  # maximize or minimize; the metric's own if null
    "storage": None,  # e.g. sqlite:///search.db; a journal in the study's folder if null
    "max_failure_rate": 0.9,  # of all trials, checked from the tenth on
    "conditions": None,  # parameter: {another: its level or levels}; drawn only where these hold
    "params": None,
}


def publish() -> None:
    """Register `hydra/sweeper=optuna` with Hydra, under its entry for plugins.

    Called once Hydra has loaded all plugins: hydra-optuna-sweeper, where it is installed, has the same name.
    """
    store = ConfigStore.instance()
    node = {**NODE, "_target_": "hydra_plugins.ablate_launchers.OptunaSweeper"}
    store.store(group="hydra/sweeper", name="optuna", node=node, provider="ablate")
    for name, sampler in SAMPLERS.items():
        store.store(
            group="hydra/sweeper/sampler",
            name=name,
            node={"_target_": f"optuna.samplers.{sampler}", "seed": None},
            provider="ablate",
        )
    for name, pruner in PRUNERS.items():
        store.store(group="hydra/sweeper/pruner", name=name, node=pruner, provider="ablate")


class Search(Sweeper):
    """Draw trials, train them and report their results to Optuna, until `n_trials` are done."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.exhausted = False  # a grid has no more trials
        self.task = metrics.DEFAULT
        self.metric = ""  # once the search is open

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.study = config.study.name
        self.task = config.task.name
        self.runs_dir = Path(config.infra.runs_dir).expanduser().resolve()
        launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.launcher: StudyLauncher = launcher

    def print(self, text: str) -> None:
        """Print a line among those of the runs."""
        from rich.console import Console

        Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)

    def sweep(self, arguments: list[str]) -> None:
        """Run the search. A trial that fails, or that is refused, is recorded and the search continues.

        Raises:
            UserError: a setting of the search, or one that all its trials share, is invalid.
        """
        swept = [f"{key}={value}" for key, value in (self.settings["params"] or {}).items()]
        space = read_space([*swept, *arguments], self.settings["conditions"] or {})
        self.launcher.check_search()
        name = self.study
        folder = manifest.study_dir(self.runs_dir, name)
        folder.mkdir(parents=True, exist_ok=True)
        search = self._open(name, folder)
        self._run(search, space)
        self._sum_up(search, space, folder)

    def _open(self, name: str, folder: Path) -> optuna.Study:
        try:
            import optuna
        except ImportError as error:
            raise UserError("hydra/sweeper=optuna needs Optuna", "pip install 'ablate[search]'") from error
        from hydra.utils import instantiate
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        task = metrics.of_task(self.task)
        self.metric = self.settings["metric"] or task.validation_column
        direction = self.settings["direction"]
        if self.metric not in task.validation_columns:
            raise unknown("hydra.sweeper.metric", str(self.metric), task.validation_columns)
        if direction not in (None, "maximize", "minimize"):
            raise unknown("hydra.sweeper.direction", str(direction), ("maximize", "minimize"))
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        url = self.settings["storage"]
        try:
            storage: Any = url or JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
            search = optuna.create_study(
                study_name=name,
                storage=storage,
                direction=direction or ("maximize" if metrics.find(self.metric).higher else "minimize"),
                load_if_exists=True,
            )
        except Exception as error:  # each kind of storage has errors of its own
            raise UserError(
                f"the search's storage {url or folder / JOURNAL} cannot be opened: {error}",
                "hydra.sweeper.storage=sqlite:////path/to/search.db is another one",
            ) from error
        sampler = self.settings["sampler"]
        if sampler.get("seed") is not None:  # a search that is resumed repeats no draw
            sampler = {**sampler, "seed": sampler["seed"] + len(search.trials)}
        search.sampler = instantiate(sampler, _convert_="all")
        search.pruner = instantiate(self.settings["pruner"], _convert_="all")
        return search

    def _run(self, search: optuna.Study, space: Space) -> None:
        """Train trials until there are `n_trials`, first those that an ended process left unfinished."""
        import optuna

        refused: list[UserError] = []
        trained = False
        while True:
            left = [trial for trial in search.get_trials(deepcopy=False) if _abandoned(trial)]
            room = self.settings["n_trials"] - len(search.get_trials(deepcopy=False))
            count = min(self.settings["n_jobs"], len(left) or room)
            if count <= 0 or (self.exhausted and not left):
                return
            trials = [
                optuna.Trial(search, left[number]._trial_id) if left else search.ask()
                for number in range(count)
            ]
            accepted = []
            for trial in trials:
                trial.set_user_attr("holder", claim.this_process())
                overrides = space.drawn(trial.params) if left else space.draw(trial)
                problem = self.launcher.refusal(overrides)
                if problem is None:
                    accepted.append((trial, overrides))
                    continue
                refused.append(problem)
                self._report(search, trial, None, problem.problem)
                if not trained and len(refused) >= HOPELESS:
                    raise problem
            if accepted:
                trained = True
                self._train(search, accepted)
            self._give_up(search)

    def _train(self, search: optuna.Study, accepted: Sequence[tuple[optuna.Trial, list[str]]]) -> None:
        import optuna

        trials = [
            Epochs(trial, RunFolder(self.runs_dir / self.launcher.signature(overrides)), self.metric)
            for trial, overrides in accepted
        ]
        with watched(trials):
            self.launcher.train([overrides for _, overrides in accepted], searching=True)
        for epochs in trials:
            epochs.report()
            trial, folder = epochs.trial, epochs.folder
            trial.set_user_attr("run", folder.signature)
            value = (folder.result() or {}).get(self.metric)
            status = folder.status()
            if value is None and status["state"] == PRUNED:
                self._tell(search, trial, None, optuna.trial.TrialState.PRUNED)
                self.print(f"trial {trial.number} {status['error']}")
            else:
                self._report(search, trial, value, str(status.get("error") or "the run has no result"))

    def _report(self, search: optuna.Study, trial: optuna.Trial, value: float | None, error: str) -> None:
        import optuna

        good = isinstance(value, (int, float)) and math.isfinite(value)
        if not good:
            trial.set_user_attr("error", error)
        self._tell(search, trial, value if good else None, None if good else optuna.trial.TrialState.FAIL)
        if not good:
            self.print(f"trial {trial.number} failed: {error}; the search continues")

    def _tell(
        self,
        search: optuna.Study,
        trial: optuna.Trial,
        value: float | None,
        state: optuna.trial.TrialState | None,
    ) -> None:
        try:
            search.tell(trial, value, state)
        except RuntimeError as stopped:  # a grid ends the search in this way; Optuna has the result
            if "Study.stop" not in str(stopped):
                raise
            self.exhausted = True

    def _give_up(self, search: optuna.Study) -> None:
        import optuna

        done = [trial for trial in search.get_trials(deepcopy=False) if trial.state.is_finished()]
        failed = sum(trial.state == optuna.trial.TrialState.FAIL for trial in done)
        limit = self.settings["max_failure_rate"]
        if len(done) >= 10 and failed > limit * len(done):
            raise UserError(
                f"{failed} of {len(done)} trials failed, more than hydra.sweeper.max_failure_rate={limit}",
                f"{commands.command('status', search.study_name, runs_dir=self.runs_dir)} shows why",
            )

    def _sum_up(self, search: optuna.Study, space: Space, folder: Path) -> None:
        import optuna

        trials = search.get_trials(deepcopy=False)
        complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
        failed = sum(trial.state == optuna.trial.TrialState.FAIL for trial in trials)
        pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in trials)
        kinds = {"pruned": pruned, "failed": failed}
        counts = ", ".join(
            [f"{len(trials)} trial{'s' * (len(trials) != 1)}"]
            + [f"{count} {kind}" for kind, count in kinds.items() if count]
        )
        if not complete:
            raise UserError(
                f"no trial of the search has a result ({counts})",
                f"{commands.command('status', search.study_name, runs_dir=self.runs_dir)} shows why",
            )
        best = search.best_trial
        overrides = space.drawn(best.params)
        record = {
            "metric": self.metric,
            "best_value": best.value,
            "best_params": best.params,
            "run": best.user_attrs.get("run"),
            "trials": len(trials),
            **kinds,
        }
        write_json(folder / RECORD, record)
        levels = ", ".join(f"{name}={value}" for name, value in best.params.items())
        again = [o for o in overrides if not o.startswith(("hydra", "study", "infra"))]
        self.print(
            f"{counts}; best {self.metric} {best.value:.4g} with {levels} "
            f"(run {record['run']}), recorded in {commands.shown(folder / RECORD)}\n"
            f"train it with other seeds: ablate train -m {shlex.join(again)} seed=0,1,2\n"
            f"more trials: hydra.sweeper.n_trials={len(trials) + 20}"
        )


def _abandoned(trial: optuna.trial.FrozenTrial) -> bool:
    """Return True if the trial's process ran on this machine and has ended without reporting a result."""
    holder = trial.user_attrs.get("holder")
    return not trial.state.is_finished() and isinstance(holder, dict) and claim.gone(holder)
