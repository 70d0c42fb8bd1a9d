"""Prospect of a study before it is paid for: what is left to run, how long it takes, what it can show."""

from __future__ import annotations

import statistics as plain
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ablate.compose.check import possible
from ablate.compose.infra import read as read_infra
from ablate.compose.request import Request
from ablate.errors import UserError
from ablate.execution.staleness import changed_since
from ablate.launch.plan import Plan
from ablate.results import comparisons, equivalence, statistics
from ablate.results.collect import collect
from ablate.results.conditions import labels
from ablate.results.formats import counted
from ablate.store import manifest
from ablate.store.folder import FINISHED, RUNNING, RunFolder
from ablate.store.identity import digest, pair_key, settings, signature, without_weights
from ablate.studies import states

STALE, LEFT = "stale", "left"
CHANCE = 0.8  # with which a true difference is to be seen
Measure = Callable[[Mapping[str, Any]], float]  # seconds of a run


@dataclass(frozen=True)
class Condition:
    """A condition of a planned study.

    Attributes:
        label: as in a report.
        seeds: number of its runs.
        states: number of its runs by state: finished, stale, running, or left.
        seconds: of one device that a run of it takes; None if that is not known.
        source: of the seconds.
    """

    label: str
    seeds: int
    states: Mapping[str, int]
    seconds: float | None
    source: str


@dataclass(frozen=True)
class Prospect:
    """A planned study.

    Attributes:
        conditions: those that can exist.
        impossible: overrides of conditions that cannot exist, with the reason.
        at_a_time: runs at a time.
        devices: that compute a run together, each with its share of every batch.
        bytes_left: that the runs which are left will need on disk; None if no run like them has finished.
        effect: true difference over the standard deviation of differences that is seen with a power of 80 %.
        margin: the margin of equivalence that can be shown with the same power, in the same unit.
        sd: standard deviation of paired differences so far, in points; None if no two pairs have finished.
    """

    conditions: list[Condition]
    impossible: list[tuple[str, str]]
    at_a_time: int
    devices: int
    bytes_left: int | None
    effect: float | None
    margin: float | None
    sd: float | None

    @property
    def left(self) -> int:
        """Number of runs that are left."""
        return sum(condition.states.get(LEFT, 0) for condition in self.conditions)

    @property
    def hours(self) -> float | None:
        """Hours of one device that the runs which are left take; None if one of them is not known."""
        total = 0.0
        for condition in self.conditions:
            if not condition.states.get(LEFT):
                continue
            if condition.seconds is None:
                return None
            total += condition.states[LEFT] * condition.seconds
        return total / 3600

    @property
    def wall_hours(self) -> float | None:
        """Hours until the last run ends, if devices that share a run lose nothing by it."""
        return (
            None if self.hours is None else self.hours / self.devices / max(1, min(self.at_a_time, self.left))
        )


def prospect(requests: Sequence[Request], at_a_time: int, measure: Measure | None = None) -> Prospect:
    """Look ahead at a study. Nothing is written.

    Args:
        requests: its runs.
        at_a_time: runs at a time.
        measure: seconds of a run of a configuration like which none has finished; None: not measured.

    Raises:
        UserError: no run can exist, or the design of the study.
    """
    infra = read_infra(requests[0].config["infra"])
    runs_dir = Path(infra.runs_dir).expanduser().resolve()
    runs, impossible = possible(requests)
    if not runs:
        raise UserError(f"no run can exist: {impossible[0][1]}", "change what this says of every run")
    plan = Plan(runs, runs_dir, "")
    planned = plan.manifest()
    named = {run.signature: label for run, label in zip(planned.runs, labels(planned), strict=True)}
    groups: dict[str, list[Request]] = {}
    for request in runs:
        groups.setdefault(pair_key(request.config), []).append(request)
    finished = _indexed(list(_finished(runs_dir)))
    conditions, sizes = [], []
    for group in groups.values():
        counts = Counter(_state(RunFolder(runs_dir / signature(request.config))) for request in group)
        like = _like(group[0].config, finished)
        seconds, source = like.seconds, like.source
        if seconds is None and measure is not None and counts[LEFT]:
            seconds, source = measure(group[0].config), "measured here"
        sizes.append(like.bytes and like.bytes * counts[LEFT])
        label = (
            named[signature(group[0].config)] if len(requests) > 1 else f"op={group[0].config['op']['name']}"
        )
        conditions.append(Condition(label, len(group), counts, seconds, source))
    pairs = min(condition.seeds for condition in conditions)
    several = len(conditions) > 1 and pairs > 1
    return Prospect(
        conditions=conditions,
        impossible=impossible,
        at_a_time=at_a_time,
        devices=infra.devices * int(infra.launcher["nodes"]),
        bytes_left=None if None in sizes else sum(size or 0 for size in sizes),
        effect=_smallest(lambda effect: statistics.power(pairs, effect)) if several else None,
        margin=_smallest(lambda margin: equivalence.power(margin, pairs**-0.5, pairs - 1))
        if several
        else None,
        sd=_spread(runs_dir, plan.study),
    )


def _state(folder: RunFolder) -> str:
    state = states.state_of(folder)
    if state == FINISHED:
        return STALE if changed_since([folder])[0] else FINISHED
    return RUNNING if state == RUNNING else LEFT


@dataclass(frozen=True)
class _Done:
    """A finished run."""

    config: Mapping[str, Any]
    seconds: float  # of one device
    bytes: int
    device: str  # name of the card, or `cpu`
    ended: datetime


@dataclass(frozen=True)
class _Alike:
    """Time and space of the finished runs that are most alike."""

    seconds: float | None = None
    source: str = ""
    bytes: int | None = None


def _finished(runs_dir: Path) -> Iterator[_Done]:
    for path in runs_dir.glob("*/result.json"):
        folder = RunFolder(path.parent)
        status = folder.status()
        config = folder.read_config()[0]
        if status["state"] != FINISHED or not config or status.get("attempt") != 1:
            continue  # the times of a run that was interrupted leave out what it did before
        ended = datetime.fromisoformat(status["finished"])
        took = ended - datetime.fromisoformat(status["started"])
        size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
        hardware = (folder.environment() or {}).get("hardware") or {}
        processes = int(hardware.get("processes") or 1)
        yield _Done(config, took.total_seconds() * processes, size, str(hardware.get("device")), ended)


def _of_any_operator(config: Mapping[str, Any]) -> str:
    return digest(_priced(config))


def _of_operator(config: Mapping[str, Any]) -> str:
    return digest({**_priced(config), "op": config["op"]["name"]})


def _of_any_weights(config: Mapping[str, Any]) -> str:
    return digest({**_priced(config), "op": config["op"]})


def _priced(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings beside the operator that decide how long a run takes."""
    found = {key: value for key, value in settings(config).items() if key not in ("seed", "op")}
    return without_weights(found, names=True)


RECENT = 3  # runs: the load of a machine changes
MEANS = ("compile", "kernels", "memory_format", "threads", "workers")
LIKENESS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {  # the most alike first
    "other seeds": pair_key,
    "other weights to begin with": _of_any_weights,
    "other settings of the operator": _of_operator,
    "other operators": _of_any_operator,
}
Index = Mapping[str, Mapping[str, list[_Done]]]  # finished runs by likeness and key


def _indexed(finished: Sequence[_Done]) -> Index:
    found: dict[str, dict[str, list[_Done]]] = {words: {} for words in LIKENESS}
    for done in finished:
        for words, key in LIKENESS.items():
            found[words].setdefault(key(done.config), []).append(done)
    return found


def _like(config: Mapping[str, Any], finished: Index) -> _Alike:
    """Return the median over the last RECENT of the finished runs that are most like a configuration.

    Of those that are equally like it, the ones count that were computed by the same means, if there are some.
    """
    wanted = str(config["infra"]["device"]).partition(":")[0]  # of `auto` it is not known which it will be
    for words, key in LIKENESS.items():
        found = finished[words].get(key(config), [])
        alike = [done for done in found if wanted == "auto" or (wanted == "cpu") == (done.device == "cpu")]
        by_same_means = [done for done in alike if _means(done.config) == _means(config)]
        alike = sorted(by_same_means or alike, key=lambda done: done.ended)[-RECENT:]
        if alike:
            seconds = plain.median(done.seconds for done in alike)
            size = int(plain.median(done.bytes for done in alike))
            return _Alike(seconds, f"{words} ({counted(len(alike), 'run')})", size)
    return _Alike()


def _means(config: Mapping[str, Any]) -> list[Any]:
    """Return the settings outside of a run's identity that decide how fast it is computed."""
    return [config["infra"].get(name) for name in MEANS]


def _smallest(power: Callable[[float], float]) -> float | None:
    """Return the least value at which a power reaches CHANCE; None above 1,000 standard deviations."""
    low, high = 0.0, 1000.0
    if power(high) < CHANCE:
        return None
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= CHANCE else (middle, high)
    return high


def _spread(runs_dir: Path, study: str) -> float | None:
    """Return the pooled standard deviation of paired differences from the baseline so far, in points."""
    planned = manifest.find(runs_dir, study)
    if planned is None:
        return None
    try:
        found = comparisons.analyse(planned, collect(runs_dir, study))
    except UserError:
        return None
    variances = [plain.variance(one.differences) for one in found.comparisons if len(one.differences) > 1]
    return plain.fmean(variances) ** 0.5 if variances else None
