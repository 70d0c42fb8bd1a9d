"""`ablate plan`: what a study will cost and can show, before anything is computed."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.compose.request import Request
    from ablate.launch.study import Launch
    from ablate.studies.prospect import Prospect

WORDS = "the arguments are those of `ablate train`; --quick measures no step"
OWN = ("--quick", "--dry-run")  # options that are not Hydra's
STATES = ("finished", "stale", "running", "left")


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb, whose arguments are those of `train`."""
    verbs.add_parser("plan", help=f"what a study will cost and can show, before it is computed ({WORDS})")


def plan(arguments: Sequence[str]) -> None:
    """Compose the runs of a command line as `train` does, and print a prospect of them.

    Raises:
        UserError: as `ablate train` with these arguments.
    """
    from ablate.cli import train
    from ablate.launch.study import looking_ahead

    quick, given = "--quick" in arguments, [word for word in arguments if word not in OWN]
    with (
        looking_ahead(lambda requests, launch: show(requests, launch, quick)),
        tempfile.TemporaryDirectory(prefix="ablate-plan-") as scratch,
    ):
        place = next((index for index, word in enumerate(given) if not word.startswith("-")), len(given))
        given.insert(place, f"hydra.sweep.dir={scratch}")  # where Hydra keeps its record of a sweep
        train.train(given)


def show(requests: Sequence[Request], launch: Launch, quick: bool) -> None:
    """Print what the runs will cost and can show."""
    from rich.console import Console

    from ablate.cli.launchers import LAUNCHERS
    from ablate.execution.place import from_environment
    from ablate.launch.local.launch import default_workers
    from ablate.studies.prospect import prospect

    place = from_environment()
    if place is not None and place.rank:
        return
    infra = requests[0].config["infra"]
    name = next(name for name, one in LAUNCHERS.items() if one is launch)
    at_a_time = {
        "inline": 1,
        "local": infra["launcher"]["workers"]
        or default_workers(len(requests), infra["device"], infra["devices"]),
        "slurm": infra["launcher"]["parallelism"] * infra["launcher"]["side_by_side"],
    }[name]
    console = Console(stderr=True, highlight=False)
    together = min(at_a_time, len(requests))
    measure = None if quick or name == "slurm" else _measuring(console, together)
    found = prospect(requests, at_a_time, measure)
    _print(found, Console(highlight=False), slurm=name == "slurm")


def _measuring(console: Any, together: int) -> Callable[[Mapping[str, Any]], float]:
    def measure(config: Mapping[str, Any]) -> float:
        from ablate.studies import trial

        with console.status(f"a few steps of op={config['op']['name']}, like which no run has finished"):
            return trial.side_by_side(config, together)

    return measure


def _print(found: Prospect, console: Any, *, slurm: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ablate.results.formats import memory

    table = Table(box=None, pad_edge=False, header_style="bold")
    states = [state for state in STATES if any(one.states.get(state) for one in found.conditions)]
    for title in ("condition", "seeds", *states, "a run", "by"):
        table.add_column(title, overflow="fold")
    for one in found.conditions:
        counts = (str(one.states.get(state, 0) or "") for state in states)
        took = "?" if one.seconds is None else duration(one.seconds)
        table.add_row(escape(one.label), str(one.seeds), *counts, took, one.source)
    console.print(table)
    for levels, reason in found.impossible:
        console.print(f"cannot exist: {levels}: {reason}", markup=False, soft_wrap=True)
    runs = f"{found.left} run{'s' * (found.left != 1)} left"
    if found.hours is None:
        why = "give infra.device and hydra/launcher=local to measure a step" if slurm else "leave --quick out"
        console.print(f"{runs}; how long they take is not known: {why}")
    elif found.left:
        whole, wall = duration(3600 * found.hours), duration(3600 * (found.wall_hours or 0))
        console.print(f"{runs}: {whole} of one device, {wall} with {found.at_a_time} at a time")
    if found.left and found.bytes_left is not None:
        console.print(f"{memory(found.bytes_left)} on disk")
    if found.effect is not None and found.margin is not None:
        console.print(_power(found), soft_wrap=True)


def _power(found: Prospect) -> str:
    """Describe the smallest difference and margin that so many pairs show."""
    pairs = min(one.seeds for one in found.conditions)
    assert found.effect is not None
    assert found.margin is not None
    unit = 1.0 if found.sd is None else found.sd
    of = "standard deviations of the paired differences" if found.sd is None else "points, by the runs so far"
    return (
        f"{pairs} pairs show, four times in five, a true difference of {found.effect * unit:.2f} {of}, and "
        f"equivalence within a margin of {found.margin * unit:.2f}"
    )


def duration(seconds: float) -> str:
    """Return a time in the largest two units that fit."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.1f} days"
