"""`hydra/sweeper=optuna`: a search of hyper-parameters by Optuna's samplers, on validation accuracy.

Trials are runs of the study `study.name`, computed by any launcher. The search is kept in a journal in the
study's folder, which several processes may share; the same command resumes it. Start reading in
`Search.sweep`.
"""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ablate import commands
from ablate.errors import UserError, unknown
from ablate.execution import claim
from ablate.store import manifest
from ablate.store.files import write_json

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from ablate.launch.launchers import StudyLauncher

RECORD = "search.json"  # best trial and failures, in the study's folder
JOURNAL = "search.journal"
METRICS = {"validation_top1": "maximize", "validation_loss": "minimize"}
HOPELESS = 10  # refused trials before any that could be trained: the fault is in what they share
SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "gp": "GPSampler",
    "grid": "BruteForceSampler",
}
NODE: dict[str, Any] = {
    "_recursive_": False,  # the sampler is made when the search is opened
    "defaults": [{"sampler": "tpe"}],
    "n_trials": 20,  # in all, also those of earlier commands
    "n_jobs": 2,  # trials at a time
    "metric": "validation_top1",  # or validation_loss
    "direction": None,  # maximize or minimize; the metric's own if null
    "storage": None,  # e.g. sqlite:///search.db; a journal in the study's folder if null
    "max_failure_rate": 0.9,  # of all trials, looked at from the tenth on
    "conditions": None,  # parameter: {another: its level or levels}; drawn only where these hold
    "params": None,
}


@dataclass(frozen=True)
class Space:
    """Search space: parameters in the order in which they are drawn, and the overrides of all trials.

    Attributes:
        distributions: parameter → distribution.
        fixed: override → value, as it is typed.
        conditions: parameter → {another parameter or override: levels for which it is drawn}.
        keys: each of them as it was typed, with a leading `+` where there was one.
    """

    distributions: dict[str, BaseDistribution]
    fixed: dict[str, str]
    conditions: dict[str, dict[str, set[str]]]
    keys: dict[str, str]

    def draw(self, trial: optuna.Trial) -> list[str]:
        """Draw a level of each parameter whose conditions hold; return the trial's overrides."""
        levels = dict(self.fixed)
        for name, distribution in self.distributions.items():
            wanted = self.conditions.get(name, {})
            if all(levels.get(other) in accepted for other, accepted in wanted.items()):
                levels[name] = str(trial._suggest(name, distribution))
        return self._typed(levels)

    def drawn(self, params: Mapping[str, Any]) -> list[str]:
        """Overrides of a trial that was drawn before."""
        return self._typed({**self.fixed, **{name: str(value) for name, value in params.items()}})

    def _typed(self, levels: Mapping[str, str]) -> list[str]:
        return [f"{self.keys[name]}={level}" for name, level in levels.items()]


def read_space(overrides: Sequence[str], conditions: Mapping[str, Mapping[str, Any]]) -> Space:
    """Read Hydra's sweep syntax as a search space.

    `choice(a,b)` or `a,b` draws from a list, `range(1,9,2)` from these numbers, `interval(1e-4,1e-2)` from an
    interval, `int(interval(1,9))` from its whole numbers, `tag(log, interval(…))` from its logarithm.

    Raises:
        UserError: nothing is to be searched, or a condition names what is drawn later or not at all.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    distributions = {str(o.key_or_group): _distribution(o) for o in parsed if o.is_sweep_override()}
    fixed = {
        str(override.key_or_group): override.get_value_element_as_str()
        for override in parsed
        if not override.is_sweep_override() and str(override.key_or_group) not in distributions
    }
    if not distributions:
        raise UserError(
            "the search has nothing to draw",
            "give a parameter several values: 'recipe.learning_rate=tag(log, interval(1e-4, 1e-2))'",
        )
    read: dict[str, dict[str, set[str]]] = {}
    order = [*fixed, *distributions]
    for name, wanted in conditions.items():
        if name not in distributions:
            raise unknown("parameter of hydra.sweeper.conditions:", str(name), distributions)
        earlier = order[: order.index(name)]
        for other, levels in wanted.items():
            if other not in earlier:
                raise unknown(f"condition of {name}, which must be drawn before it:", str(other), earlier)
            accepted = levels if isinstance(levels, (list, tuple)) else [levels]
            read.setdefault(name, {})[other] = {str(level) for level in accepted}
    keys = {str(override.key_or_group): override.get_key_element() for override in parsed}
    return Space(distributions, fixed, read, keys)


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    if override.is_interval_sweep():
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(value.start, value.end, log=log)
    if override.is_range_sweep() and not value.shuffle:
        numbers = list(value.range())
        if len(numbers) > 1 and numbers[1] > numbers[0]:
            step = numbers[1] - numbers[0]
            whole = all(isinstance(number, int) for number in numbers)
            kind: Any = IntDistribution if whole else FloatDistribution
            return kind(numbers[0], numbers[-1], step=step)
    return CategoricalDistribution([str(x) for x in override.sweep_iterator(transformer=Transformer.encode)])


class Search(Sweeper):
    """Ask, train, tell, until `n_trials` are done."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.exhausted = False  # a grid has no more trials

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.study = config.study.name
        self.runs_dir = Path(config.infra.runs_dir).expanduser().resolve()
        launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.launcher: StudyLauncher = launcher

    def print(self, text: str) -> None:
        """A line beside those of the runs."""
        from rich.console import Console

        Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)

    def sweep(self, arguments: list[str]) -> None:
        """Search. A trial that fails or cannot be trained is recorded as failed, and the search continues.

        Raises:
            UserError: a setting of the search, or what all its trials share, cannot be.
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

        metric: str = self.settings["metric"]
        direction = self.settings["direction"]
        if metric not in METRICS:
            raise unknown("hydra.sweeper.metric", str(metric), METRICS)
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
                direction=direction or METRICS[metric],  # type: ignore[arg-type]
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
        return search

    def _run(self, search: optuna.Study, space: Space) -> None:
        """Train trials until there are `n_trials`: first those that a process left behind when it ended."""
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
            asked = []
            for trial in trials:
                trial.set_user_attr("holder", claim.this_process())
                overrides = space.drawn(trial.params) if left else space.draw(trial)
                problem = self.launcher.refusal(overrides)
                if problem is None:
                    asked.append((trial, overrides))
                    continue
                refused.append(problem)
                self._tell(search, trial, None, problem.problem)
                if not trained and len(refused) >= HOPELESS:
                    raise problem
            if asked:
                trained = True
                self._train(search, asked)
            self._give_up(search)

    def _train(self, search: optuna.Study, asked: Sequence[tuple[optuna.Trial, list[str]]]) -> None:
        folders = self.launcher.train([overrides for _, overrides in asked], searching=True)
        for (trial, _), folder in zip(asked, folders, strict=True):
            trial.set_user_attr("run", folder.signature)
            metric = self.settings["metric"]
            for line in folder.metrics():
                if isinstance(value := line.get(metric), (int, float)) and math.isfinite(value):
                    trial.report(value, line["epoch"])
            value = (folder.result() or {}).get(metric)
            self._tell(search, trial, value, str(folder.status().get("error") or "the run has no result"))

    def _tell(self, search: optuna.Study, trial: optuna.Trial, value: float | None, error: str) -> None:
        import optuna

        good = isinstance(value, (int, float)) and math.isfinite(value)
        if not good:
            trial.set_user_attr("error", error)
        try:
            search.tell(trial, value if good else None, None if good else optuna.trial.TrialState.FAIL)
        except RuntimeError as stopped:  # a grid ends the search in this way; the trial is told
            if "Study.stop" not in str(stopped):
                raise
            self.exhausted = True
        if not good:
            self.print(f"trial {trial.number} failed: {error}; the search continues")

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
        counts = f"{len(trials)} trials, {failed} failed" if failed else f"{len(trials)} trials"
        if not complete:
            raise UserError(
                f"no trial of the search has a result ({counts})",
                f"{commands.command('status', search.study_name, runs_dir=self.runs_dir)} shows why",
            )
        best = search.best_trial
        overrides = space.drawn(best.params)
        record = {
            "metric": self.settings["metric"],
            "best_value": best.value,
            "best_params": best.params,
            "run": best.user_attrs.get("run"),
            "trials": len(trials),
            "failed": failed,
        }
        write_json(folder / RECORD, record)
        levels = ", ".join(f"{name}={value}" for name, value in best.params.items())
        again = [o for o in overrides if not o.startswith(("hydra", "study", "infra"))]
        self.print(
            f"{counts}; best {self.settings['metric']} {best.value:.4g} with {levels} "
            f"(run {record['run']}), recorded in {commands.shown(folder / RECORD)}\n"
            f"train it with other seeds: ablate train -m {shlex.join(again)} seed=0,1,2\n"
            f"more trials: hydra.sweeper.n_trials={len(trials) + 20}"
        )


def _abandoned(trial: optuna.trial.FrozenTrial) -> bool:
    """True if the trial's process was one of this machine and has ended without telling its result."""
    holder = trial.user_attrs.get("holder")
    return not trial.state.is_finished() and isinstance(holder, dict) and claim.gone(holder)
