"""Hydra's side of a launcher: a sweep's overrides become requests, and their results go back to Hydra.

Results are read from the run folders. Light to import: Hydra loads launchers at every start of every Hydra
application.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ablate.compose.study import SKIP
from ablate.errors import UnknownSettingError, UserError

if TYPE_CHECKING:
    from ablate.compose.request import Request
    from ablate.launch.study import Launch
    from ablate.store.folder import RunFolder


class StudyLauncher(Launcher):
    """A launcher of Hydra that submits a sweep as a study and runs it.

    Attributes:
        returns_at_once: the launcher submits jobs, and waits for them only if infra.launcher.wait is set.
    """

    returns_at_once = False
    composer: Any

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepare the launcher; Hydra calls this before `launch`. Sweepers use the same composer."""
        from ablate.compose.planning import Composer

        self.config = config
        self.composer = Composer(hydra_context.config_loader)
        hydra_context.config_loader = self.composer

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check, freeze and run a sweep. Ends the program with 1 if a run failed, 130 on Ctrl-C.

        A sweeper of another package that searches calls it batch by batch and judges failed runs itself.
        """
        searching = not str(self.config.hydra.sweeper._target_).endswith(".BasicSweeper")
        folders = self.train(job_overrides, searching=searching)
        return [
            self._returned(overrides, folder, searching)
            for overrides, folder in zip(job_overrides, folders, strict=True)
            if folder is not None
        ]

    def train(self, job_overrides: Sequence[Sequence[str]], *, searching: bool) -> list[RunFolder | None]:
        """Check, freeze and run a sweep, or a few trials of a search; return the folder of each run.

        There is none for a combination that cannot be composed and is skipped.

        Ends the program with 1 if a run of a sweep failed, 130 on Ctrl-C.

        Raises:
            UserError: a run cannot exist; then nothing was written.
        """
        from ablate.launch.study import run_study
        from ablate.store.identity import signature

        setup_globals()
        requested, refused = self._requests(job_overrides)
        requests = [request for request in requested if request is not None]
        if not job_overrides:
            raise UserError(
                "the sweep has no runs: a glob(…) in it matches nothing, or a range(…) is empty",
                "`ablate train --help` lists the choices of every group",
            )
        if searching:
            self.check_search()
        portion = searching or self._narrowed()
        launch = self.launch_function()
        submission = run_study(requests, launch, lenient=searching, portion=portion, refused=refused)
        return [
            None if request is None else submission.folder(signature(request.config)) for request in requested
        ]

    def refusal(self, overrides: Sequence[str]) -> UserError | None:
        """Return why a run with these overrides cannot exist, or None."""
        from ablate.compose.check import check
        from ablate.execution.place import from_environment

        setup_globals()
        place = from_environment()
        try:
            check([self._request(overrides)], place.world_size if place else None)
        except UserError as error:
            return error
        return None

    def signature(self, overrides: Sequence[str]) -> str:
        """Return the signature of the run with these overrides."""
        from ablate.store.identity import signature

        setup_globals()
        return signature(self._request(overrides).config)

    @abstractmethod
    def launch_function(self) -> Launch:
        """Return the function that runs what is ready of a submission."""

    def check_search(self) -> None:
        """Refuse a search without a study's name, or one that could not wait for results.

        Raises:
            UserError: with the setting to add; or the command is only planned.
        """
        from ablate.launch.study import refuse_a_look_ahead

        refuse_a_look_ahead("a sweeper that searches")
        if self.returns_at_once and not self.config.infra.launcher.wait:
            raise UserError(
                "a sweeper that searches chooses its next runs by the results of the last ones",
                "add infra.launcher.wait=true",
            )
        if not self.config.study.name:
            raise UserError(
                "a search submits a few runs at a time; only a name makes them one study", "add study.name=…"
            )
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)  # the sweeper writes there

    def _narrowed(self) -> bool:
        """Return True if the command line replaces what the study's file sweeps."""
        swept = self.config.hydra.sweeper.get("params") or {}
        typed = (override.partition("=")[0].lstrip("+") for override in self.config.hydra.overrides.task)
        return not {key for key in typed if key != "seed"}.isdisjoint(swept)

    def _request(self, overrides: Sequence[str]) -> Request:
        from ablate.compose.request import request

        return request(self.composer.plain(self.config, list(overrides)), overrides)

    def _requests(
        self, job_overrides: Sequence[Sequence[str]]
    ) -> tuple[list[Request | None], dict[str, str]]:
        """Return the requested runs, and by its overrides why a combination cannot even be composed.

        Raises:
            UserError: one cannot, and `study.impossible` is not `skip`, or none can; names its overrides.
        """
        from ablate.compose.explanation import explain, explained

        found: list[Request | None] = []
        refused: dict[str, str] = {}
        skips = self.config.study.get("impossible") == SKIP
        common = set.intersection(*map(set, job_overrides)) if job_overrides else set()
        for overrides in job_overrides:
            try:
                found.append(self._request(overrides))
            except Exception as raised:
                if not isinstance(raised, UserError) and not explained(raised):
                    raise
                error = raised if isinstance(raised, UserError) else explain(raised, overrides)
                shown = " ".join(
                    one for one in overrides if one not in common and not one.startswith("seed=")
                )
                if len(job_overrides) == 1 or not shown:
                    raise
                if not skips or not isinstance(error, UnknownSettingError):  # any other is a slip of the pen
                    raise UserError(f"{error.problem}  [{shown}]", error.way_out) from raised
                refused[shown] = error.problem
                found.append(None)
        if refused and not any(found):
            raise UserError(
                f"no run can exist: {next(iter(refused.values()))}", "change what this says of every run"
            )
        return found, refused

    def _returned(self, overrides: Sequence[str], folder: RunFolder, searching: bool) -> JobReturn:
        """Return to Hydra the best figure that selects checkpoints; in a search, an error without one."""
        from ablate.store.metrics import of_columns

        result = folder.result()
        if searching and result is None:
            returned = JobReturn(overrides=overrides, status=JobStatus.FAILED)
            returned.return_value = RuntimeError(folder.status().get("error") or "the run has no result yet")
        else:
            returned = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            task = of_columns(result or {})
            returned.return_value = result[task.validation_column] if result and task else None
        return returned
