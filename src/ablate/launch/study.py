"""A study, from requests to outcomes: submit, start, sum up, and compute the exit code of the program."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

from rich.console import Console

from ablate.commands import command
from ablate.compose import cells
from ablate.compose.request import Request
from ablate.errors import UserError
from ablate.execution.follower import follow_and_end
from ablate.execution.interruption import CLAIM_LOST, FAILURE, INTERRUPTION, termination_as_interrupt
from ablate.execution.outcome import CLAIMED, SKIPPED, SUPERSEDED, Outcome
from ablate.execution.place import from_environment
from ablate.execution.serving import served
from ablate.execution.staleness import changed_since
from ablate.launch.submission import Submission
from ablate.launch.submit import submit
from ablate.launch.summary import sum_up
from ablate.store.folder import FAILED, FINISHED, PENDING, PRUNED

# A launcher: runs what is ready of a submission and returns the outcomes by signature.
Launch = Callable[[Submission, Console], Mapping[str, Outcome]]


_ahead: ContextVar[Callable[[Sequence[Request], Launch], None] | None] = ContextVar("ahead", default=None)


_submitted: ContextVar[list[Submission] | None] = ContextVar("submitted", default=None)


@contextmanager
def submitted() -> Iterator[list[Submission]]:
    """Within the block, keep what commands submit, also where a run fails and ends the program."""
    found: list[Submission] = []
    token = _submitted.set(found)
    try:
        yield found
    finally:
        _submitted.reset(token)


@contextmanager
def looking_ahead(show: Callable[[Sequence[Request], Launch], None]) -> Iterator[None]:
    """Within the block, show the runs that a command requests instead of submitting them."""
    token = _ahead.set(show)
    try:
        yield
    finally:
        _ahead.reset(token)


def refuse_a_look_ahead(what: str) -> None:
    """Refuse to look ahead at a command whose runs depend on results.

    Raises:
        UserError: within `looking_ahead`.
    """
    if _ahead.get() is not None:
        raise UserError(
            f"{what} chooses its runs by the results of others, so that they cannot be planned",
            "plan one of its runs: leave the sweeper and its intervals out",
        )


def run_study(
    requests: Sequence[Request],
    launch: Launch,
    *,
    lenient: bool = False,
    portion: bool = False,
    refused: Mapping[str, str] | None = None,
) -> Submission:
    """Submit, run what is ready, sum up. Ends the program if a run failed, unless `lenient`.

    Of several processes that torchrun or srun started, rank 0 does so; the others train the runs that it
    broadcasts, and end.

    Args:
        requests: the runs of one command.
        launch: computes the runs that are ready.
        lenient: a run that fails does not end the program, and notes are not printed.
        portion: the runs are a part of their study only; see `submit`.
        refused: combinations of the command that `study.impossible=skip` leaves out already, with reasons.

    Raises:
        UserError: a run that cannot exist; then nothing was written.
    """
    asked, requests = len(requests), cells.chosen(requests, portion=portion)
    if (show := _ahead.get()) is not None:
        for levels, reason in (refused or {}).items():
            print(f"skipped, since it cannot exist: {levels}: {reason}", file=sys.stderr)
        show(requests, launch)
        sys.exit(0)
    place = from_environment()
    if place is not None and place.rank:
        follow_and_end(place, requests[0].config["infra"]["device"])
    console = Console(stderr=True, highlight=False)
    if len(requests) < asked:
        left = asked - len(requests)
        console.print(f"{left} of {asked} runs are left out by study.exclude, only and zip", markup=False)
    with ExitStack() as stack:
        submission = submit(
            requests,
            command=f"ablate train {shlex.join(sys.argv[1:])}",
            note=lambda text: None if lenient else console.print(text, markup=False, soft_wrap=True),
            announce=lambda runs_dir, runs: stack.enter_context(served(runs_dir, runs)),
            portion=portion,
            refused=refused,
        )
        if (kept := _submitted.get()) is not None:
            kept.append(submission)
        exit_code = start(submission, launch)
    if exit_code and not lenient:
        sys.exit(exit_code)
    return submission


def start(submission: Submission, launch: Launch) -> int:
    """Run what is ready, sum up, and return an exit code: 0 if every run is finished, running or in a job.

    Ends the program on Ctrl-C.
    """
    console = Console(stderr=True, highlight=False)
    count = len(submission.configs)
    parts = [f"{count} run{'s' * (count != 1)}"]
    parts += [f"{number} {words}" for words, number in submission.counts().items()]
    console.print(f"{submission.manifest.name}: {', '.join(parts)}")
    _note_stale(submission, console)
    try:
        with termination_as_interrupt():
            outcomes = launch(submission, console)
    except KeyboardInterrupt:
        console.print("interrupted; the same command resumes where it stopped")
        sys.exit(INTERRUPTION)
    sum_up(submission, outcomes, console)
    well = (FINISHED, PRUNED, SKIPPED, CLAIMED, PENDING)  # pending: in the queue of a cluster
    done = {signature for signature, outcome in outcomes.items() if outcome.state in well}
    if not submission.failed and done.issuperset(submission.ready):
        return 0
    failed = submission.failed or any(outcome.state == FAILED for outcome in outcomes.values())
    superseded = any(outcome.state == SUPERSEDED for outcome in outcomes.values())
    return CLAIM_LOST if superseded and not failed else FAILURE


def _note_stale(submission: Submission, console: Console) -> None:
    """Say which finished runs, which are not run again, were computed by other code than today's."""
    folders = [submission.folder(signature) for signature in submission.finished]
    changed = [names for names in changed_since(folders) if names]
    if not changed:
        return
    anew = command("retry", submission.manifest.name, "--stale", runs_dir=submission.runs_dir)
    console.print(
        f"{len(changed)} of the runs finished before were computed by other code: "
        f"{', '.join(changed[0][:2])} changed since; to compute them anew: {anew}",
        markup=False,
        soft_wrap=True,
    )
