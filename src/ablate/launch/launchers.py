"""What Hydra's launchers do with a sweep: check and freeze it whole, run what is not finished, sum up.

Results are read from the run folders. Light to import: Hydra loads launchers at every start of
every Hydra application.
"""

from __future__ import annotations

import shlex
import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ablate import commands
from ablate.errors import UserError
from ablate.execution.interruption import CLAIM_LOST, FAILURE, INTERRUPTION, termination_as_interrupt
from ablate.store import manifest
from ablate.store.folder import OUTPUT

if TYPE_CHECKING:
    from rich.console import Console

    from ablate.execution.execute import Outcome
    from ablate.launch.submission import Request, Submission
    from ablate.store.folder import RunFolder


class StudyLauncher(Launcher):
    """A sweep becomes a submission, which `run` executes.

    Attributes:
        returns_at_once: `run` hands runs in, and waits for their results only where that is asked for.
    """

    returns_at_once = False
    composer: Any

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`. Sweepers use the same composer."""
        from ablate.compose.planning import Composer

        self.config = config
        self.composer = Composer(hydra_context.config_loader)
        hydra_context.config_loader = self.composer

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check, freeze and run a sweep. Ends the program with 1 if a run failed, 130 on Ctrl-C.

        Another package's sweeper that searches calls it a batch at a time and judges failed runs itself.
        """
        searching = not str(self.config.hydra.sweeper._target_).endswith(".BasicSweeper")
        folders = self.train(job_overrides, searching=searching)
        return [
            self._returned(overrides, folder, searching)
            for overrides, folder in zip(job_overrides, folders, strict=True)
        ]

    def train(self, job_overrides: Sequence[Sequence[str]], *, searching: bool) -> list[RunFolder]:
        """Check, freeze and run a sweep, or a few trials of a search; return the folder of each run.

        Ends the program with 1 if a run of a sweep failed, 130 on Ctrl-C.

        Raises:
            UserError: a run cannot exist; then nothing was written.
        """
        from ablate.store.identity import signature

        setup_globals()
        requests = [self._request(overrides) for overrides in job_overrides]
        if not requests:
            raise UserError(
                "the sweep has no runs: a glob(…) in it matches nothing, or a range(…) is empty",
                "`ablate train --help` lists the choices of every group",
            )
        if searching:
            self.check_search()
        submission = run_study(requests, self.run, lenient=searching, portion=searching or self._narrowed())
        return [submission.folder(signature(request.config)) for request in requests]

    def refusal(self, overrides: Sequence[str]) -> UserError | None:
        """Why a run with these overrides cannot exist, or None."""
        from ablate.launch.submission import check

        setup_globals()
        try:
            check([self._request(overrides)])
        except UserError as error:
            return error
        return None

    @abstractmethod
    def run(self, submission: Submission, console: Console) -> dict[str, Outcome]:
        """Run what is ready."""

    def _narrowed(self) -> bool:
        """Return True if the command line replaces what the study's file sweeps."""
        swept = self.config.hydra.sweeper.get("params") or {}
        typed = (override.partition("=")[0].lstrip("+") for override in self.config.hydra.overrides.task)
        return not {key for key in typed if key != "seed"}.isdisjoint(swept)

    def _request(self, overrides: Sequence[str]) -> Request:
        return _asked(self.composer.plain(self.config, list(overrides)), overrides)

    def check_search(self) -> None:
        """Refuse a search without a study's name, or one that could not wait for results.

        Raises:
            UserError: with the setting to add.
        """
        if self.returns_at_once and not self.config.infra.launcher.wait:
            raise UserError(
                "a sweeper that searches chooses its next runs by the results of the last ones",
                "add infra.launcher.wait=true",
            )
        if not self.config.study.name:
            raise UserError(
                "a search comes a few runs at a time, which only a name makes one study", "add study.name=…"
            )
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)  # the sweeper writes there

    def _returned(self, overrides: Sequence[str], folder: RunFolder, searching: bool) -> JobReturn:
        """The best validation accuracy; in a search, an error where there is none."""
        result = folder.result()
        if searching and result is None:
            returned = JobReturn(overrides=overrides, status=JobStatus.FAILED)
            returned.return_value = RuntimeError(folder.status().get("error") or "the run has no result yet")
        else:
            returned = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            returned.return_value = result and result["validation_top1"]
        return returned


def run_in_workers(submission: Submission, console: Console) -> dict[str, Outcome]:
    """Several runs at a time in worker processes, each with its share of the cores."""
    if not submission.ready:
        return {}
    check_alone("local")
    from ablate.launch.display import show_pool
    from ablate.launch.local import WorkerPool, default_workers

    infra = next(iter(submission.configs.values()))["infra"]
    workers = infra["launcher"]["workers"] or default_workers(
        len(submission.ready), infra["device"], infra["devices"]
    )
    pool = WorkerPool(submission.runs_dir, submission.ready, min(workers, len(submission.ready)), infra)
    return show_pool(pool, submission, console)


def hand_in(submission: Submission, console: Console) -> dict[str, Outcome]:
    """As jobs of a SLURM cluster; with `infra.launcher.wait`, until they have ended."""
    from ablate.launch.slurm import launch, queue
    from ablate.studies import status

    check_alone("slurm")
    infra = next(iter(submission.configs.values()))["infra"]
    planned, runs_dir = submission.manifest, submission.runs_dir
    if manifest.find(runs_dir, planned.name) is None:
        planned.save(runs_dir)
    if submission.ready:
        jobs = launch.hand_in(runs_dir, planned.name, submission.ready, infra)
        if jobs is None:
            console.print("all of them are in jobs already: another launcher was faster")
        else:
            numbers = ", ".join(f"{array.job} ({array.count})" for array in jobs.arrays)
            where = commands.shown(jobs.path(runs_dir))
            console.print(f"submitted as job arrays {numbers}: {where}", markup=False, soft_wrap=True)
    if infra["launcher"]["wait"]:
        try:
            status.watch(runs_dir, planned.name)
        except KeyboardInterrupt:
            cancel = commands.command("cancel", planned.name, runs_dir=runs_dir)
            console.print(f"the jobs continue without this display; to end them: {cancel}", soft_wrap=True)
    live = queue.of_study(runs_dir, planned.name).live
    return {s: _outcome(submission.folder(s), in_job=s in live) for s in submission.ready}


def check_alone(launcher: str) -> None:
    """Refuse a launcher where torchrun or srun has started several processes.

    Raises:
        UserError: says what to do instead.
    """
    from ablate.execution import process_group as together

    if (place := together.from_environment()) is not None:
        raise UserError(
            f"hydra/launcher={launcher} in {place.world} processes that torchrun or srun started",
            "these compute runs themselves: leave hydra/launcher out; or start one process, and let "
            "infra.devices say how many compute a run together",
        )


def _outcome(folder: RunFolder, in_job: bool) -> Outcome:
    """What a run's folder says; whatever an earlier attempt left there, a run in a job is pending."""
    from ablate.execution.execute import Outcome
    from ablate.store.folder import PENDING

    return Outcome(PENDING if in_job else folder.state(), str(folder.status().get("error") or ""))


def request(config: DictConfig, overrides: Sequence[str]) -> Request:
    """The configuration of a single run as plain containers, with the overrides that belong to the study."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    plain.pop("hydra", None)
    return _asked(plain, overrides)


def _asked(plain: dict[str, Any], overrides: Sequence[str]) -> Request:
    from ablate.compose import structure
    from ablate.launch.submission import Request

    structure.check(plain)

    if root := plain["infra"].get("data_root"):  # frozen as it is from here: a retry may start elsewhere
        plain["infra"]["data_root"] = str(Path(str(root)).expanduser().absolute())
    named = (override.lstrip("+").partition("=") for override in overrides if not override.startswith("~"))
    levels = {key: value for key, _, value in named if not key.startswith(("hydra", "infra", "study"))}
    return Request(plain, levels)


def run_study(
    requests: Sequence[Request], run: Any, *, lenient: bool = False, portion: bool = False
) -> Submission:
    """Submit, run what is ready, sum up. Ends the program if a run failed, unless `lenient`.

    With `portion` the runs are a part of their study only, see `submit`.

    Of several processes that torchrun or srun started the first does so; the others train what it says,
    and end.

    Raises:
        UserError: a run that cannot exist; then nothing was written.
    """
    from rich.console import Console

    from ablate.execution import process_group as together
    from ablate.execution.serving import served
    from ablate.launch.submission import submit

    place = together.from_environment()
    if place is not None and place.rank:
        together.follow_and_end(place, requests[0].config["infra"]["device"])

    console = Console(stderr=True, highlight=False)
    with ExitStack() as stack:
        submission = submit(
            requests,
            command=f"ablate train {shlex.join(sys.argv[1:])}",
            note=lambda text: None if lenient else console.print(text, markup=False, soft_wrap=True),
            announce=lambda runs_dir, runs: stack.enter_context(served(runs_dir, runs)),
            portion=portion,
        )
        code = carry_out(submission, run)
    if code and not lenient:
        sys.exit(code)
    return submission


def carry_out(submission: Submission, run: Any) -> int:
    """Run what is ready, sum up, and return an exit code: 0 if every run is finished, at work or in a job.

    Ends the program on Ctrl-C.
    """
    from rich.console import Console

    from ablate.execution.execute import CLAIMED, SKIPPED, SUPERSEDED
    from ablate.store.folder import FAILED, FINISHED, PENDING

    console = Console(stderr=True, highlight=False)
    _announce(submission, console)
    try:
        with termination_as_interrupt():
            outcomes = run(submission, console)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on where it stopped")
        sys.exit(INTERRUPTION)
    _sum_up(submission, outcomes, console)
    well = (FINISHED, SKIPPED, CLAIMED, PENDING)  # pending: in the queue of a cluster
    done = {signature for signature, outcome in outcomes.items() if outcome.state in well}
    if not submission.failed and done.issuperset(submission.ready):
        return 0
    failed = submission.failed or any(outcome.state == FAILED for outcome in outcomes.values())
    superseded = any(outcome.state == SUPERSEDED for outcome in outcomes.values())
    return CLAIM_LOST if superseded and not failed else FAILURE


def run_inline(submission: Submission, console: Console) -> dict[str, Outcome]:
    """One run after the other in this process, and those that torchrun or srun started beside it."""
    from ablate.execution import process_group as together
    from ablate.execution.execute import execute

    def announce(signature: str) -> None:
        if len(submission.ready) > 1:
            number = submission.ready.index(signature) + 1
            console.print(f"[{number}/{len(submission.ready)}] {submission.title(signature)}", markup=False)

    runs = {submission.runs_dir / signature: submission.configs[signature] for signature in submission.ready}
    if (place := together.from_environment()) is not None:
        device = next(iter(submission.configs.values()))["infra"]["device"]
        return together.run(place, device, runs, announce)
    outcomes = {}
    for path, config in runs.items():
        announce(path.name)
        outcomes[path.name] = outcome = execute(path, config)
        if outcome.no_room:  # the next run would fail for the same reason
            break
    return outcomes


def _announce(submission: Submission, console: Console) -> None:
    count = len(submission.configs)
    parts = [f"{count} run{'s' * (count != 1)}"]
    for word, signatures in (
        ("finished before", submission.finished),
        ("at work elsewhere", submission.running),
        ("in jobs of the cluster", submission.queued),
        ("failed before", submission.failed),
        ("to run", submission.ready),
    ):
        if signatures:
            parts.append(f"{len(signatures)} {word}")
    console.print(f"{submission.manifest.name}: " + ", ".join(parts))


def _sum_up(submission: Submission, outcomes: dict[str, Outcome], console: Console) -> None:
    """Say how runs ended and what to do next."""
    name, runs_dir = submission.manifest.name, submission.runs_dir
    for signature, outcome in outcomes.items():
        if outcome.state in ("failed", "superseded", "damaged") and not outcome.no_room:
            where = _evidence(submission.folder(signature), outcome.detail)
            said = f"{outcome.state}: {submission.title(signature)}: {outcome.detail}{where}"
            console.print(said, markup=False, soft_wrap=True)
    for signature in submission.failed:
        folder = submission.folder(signature)
        error = str(folder.status().get("error") or "")
        said = f"failed before: {submission.title(signature)}: {error}{_evidence(folder, error)}"
        console.print(f"{said}\n  → try again with infra.retry_failed=true", markup=False, soft_wrap=True)
    counts = Counter(outcome.state for outcome in outcomes.values())
    if counts:
        console.print(f"{name}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    waiting = submission.queued or any(outcome.state == "pending" for outcome in outcomes.values())
    full = next((outcome for outcome in outcomes.values() if outcome.no_room), None)
    if full is not None:
        left = len(submission.ready) - len(outcomes)
        console.print(
            f"stopped: {full.detail}" + (f"; {left} runs were not started" if left else ""),
            markup=False,
            soft_wrap=True,
        )
        again = commands.command("retry", name, runs_dir=runs_dir)
        console.print(f"  → free space there, then: {again}", markup=False, soft_wrap=True)
    elif len(submission.configs) > 1 or waiting:
        following = commands.command("status" if waiting else "report", name, runs_dir=runs_dir)
        console.print(f"next: {following}", markup=False, soft_wrap=True)
    else:
        (signature,) = submission.configs
        result = submission.folder(signature).result()
        figures = f"test top-1 {result['test_top1']:.2f} %, " if result else ""
        console.print(
            f"{figures}run folder {commands.shown(runs_dir / signature)}", markup=False, soft_wrap=True
        )


def _evidence(folder: RunFolder, said: str) -> str:
    """Pointer to the file that says more about a failure than `said`; empty if there is none."""
    for path in (folder.error_path, folder.path / OUTPUT):
        with suppress(OSError):
            if path.read_text(encoding="utf-8", errors="replace").strip() not in ("", said):
                return f"\n  → {commands.shown(path)}"
    return ""
