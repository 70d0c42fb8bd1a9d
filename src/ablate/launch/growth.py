"""Growth of a study: factors, levels and baseline, derived from all its runs and not only the newest.

A study may be submitted in portions: more seeds, more levels, another factor, the trials of a search. Runs
that were planned before remain in it until `ablate study remove` takes them out. Start reading in `grow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ablate.compose.study import Study
from ablate.errors import UserError, nearest, unknown
from ablate.results import conditions
from ablate.results.conditions import text
from ablate.store import identity, metrics
from ablate.store.folder import FINISHED, RunFolder
from ablate.store.manifest import Manifest, PlannedRun

UNSET = conditions.UNSET


@dataclass(frozen=True)
class Member:
    """One run of a study: its overrides, and its resolved configuration, which is read when needed."""

    signature: str
    pair_key: str
    seed: int
    overrides: Mapping[str, str]
    recorded: Mapping[str, str] = field(default_factory=dict)  # levels found when it was submitted
    source: Mapping[str, Any] | RunFolder = field(default_factory=dict)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Resolved configuration; empty if its file is lost or damaged."""
        try:
            found = self.source.config(shared=True) if isinstance(self.source, RunFolder) else self.source
        except (OSError, ValueError, UserError):
            return {}
        return {**identity.IMPLIED, **found} if isinstance(found, Mapping) and found else {}

    def level(self, factor: str) -> str:
        """Level of `factor`: the resolved value, or the choice where the factor is a group."""
        if factor in self.recorded:
            return self.recorded[factor]
        value = _at(self.config, factor)
        if isinstance(value, Mapping):
            return self.overrides.get(factor, str(value.get("name", UNSET)))
        if value is _ABSENT:  # a group such as `variant` leaves no key of its own
            return self.overrides.get(factor, UNSET)
        return text(value)


_ABSENT = object()


def grow(
    earlier: Manifest | None, name: str, added: Sequence[Member], study: Study, runs_dir: Path
) -> Manifest:
    """Merge `added` into what the study had planned before.

    Factors are those declared, the earlier ones, and every override that differs between any two runs. Where
    two runs still differ although all their factors agree, because a file was edited between the portions,
    the settings that differ become factors too.

    Returns:
        The study's manifest, without command and time.

    Raises:
        UserError: the baseline names something that is not a factor, or a run's task lacks the metric.
    """
    before = [] if earlier is None else [_remembered(run, runs_dir) for run in earlier.runs]
    members = list({member.signature: member for member in [*before, *added]}.values())
    factors = _factors(members, [*(study.factors or ()), *(earlier.factors if earlier else ())])
    study.check_baseline(factors)
    metric = _metric(earlier, added, study)
    planned = Manifest(
        name=name,
        question=study.question or (earlier.question if earlier else ""),
        baseline={str(factor): text(level) for factor, level in (study.baseline or {}).items()}
        or dict(earlier.baseline if earlier else {}),
        factors=factors,
        paths={str(path): [str(step) for step in steps] for path, steps in (study.paths or {}).items()}
        or dict(earlier.paths if earlier else {}),
        metric=metric,
        **_margin(earlier, metric, study, [runs_dir / member.signature for member in members]),
        runs=[
            PlannedRun(
                member.signature,
                member.pair_key,
                member.seed,
                {factor: member.level(factor) for factor in factors},
                dict(member.overrides),
            )
            for member in members
        ],
    )
    return replace(planned, baseline=_completed(planned, {member.signature for member in added}))


def _metric(earlier: Manifest | None, added: Sequence[Member], study: Study) -> str:
    """Return the metric that the study compares: the requested one, the earlier one, or the task's own."""
    task_metrics = [metrics.of_run(member.config) for member in added]
    metric = study.metric or (earlier.metric if earlier else task_metrics[0].test_column)
    for task in task_metrics:
        if metric in task.columns:
            continue
        if study.metric is not None:
            raise unknown("study.metric of this task", metric, task.columns)
        raise UserError(
            f"a study compares its runs by one metric, {metric}, which some of their tasks do not have",
            "give each task a study of its own, or compare what all have: study.metric=test_loss",
        )
    return metric


def _margin(earlier: Manifest | None, metric: str, study: Study, folders: Iterable[Path]) -> dict[str, Any]:
    """Return the margin, and how many runs had finished when it was set. The first one of a metric stays."""
    if earlier is not None and earlier.margin is not None and earlier.metric == metric:
        return {"margin": earlier.margin, "margin_after": earlier.margin_after}
    if study.margin is None:
        return {}
    finished = sum(RunFolder(folder).state() == FINISHED for folder in folders if folder.is_dir())
    return {"margin": study.margin, "margin_after": finished}


def check(planned: Manifest) -> Iterator[UserError]:
    """Yield the errors that a report of this study would raise: its baseline, or incomplete paths."""
    try:
        conditions.baseline(planned)
    except UserError as error:
        yield error
    known = list(dict.fromkeys(conditions.labels(planned)))
    for path, steps in planned.paths.items():
        missing = [step for step in steps if step not in known]
        if missing:
            yield UserError(
                f"study.paths.{path}: study {planned.name!r} lacks the conditions {', '.join(missing)}",
                f"{nearest(missing[0], known)} conditions: {'; '.join(known)}".strip(),
            )


def _remembered(run: PlannedRun, runs_dir: Path) -> Member:
    # manifests written before overrides were kept have levels as they were spelled
    recorded = run.factors if run.overrides else {}
    return Member(
        run.signature,
        run.pair_key,
        run.seed,
        run.overrides or run.factors,
        recorded,
        RunFolder(runs_dir / run.signature),
    )


def _factors(members: Sequence[Member], declared: Iterable[str]) -> list[str]:
    factors = list(dict.fromkeys(declared))
    settings = list({member.pair_key: member for member in members}.values())  # shared by all seeds
    overridden = dict.fromkeys(key for member in settings for key in member.overrides if key != "seed")
    for key in overridden:
        if key not in factors and len({member.level(key) for member in settings}) > 1:
            factors.append(key)
    alike: dict[tuple[str, ...], list[Member]] = {}
    for member in settings:
        alike.setdefault(tuple(member.level(factor) for factor in factors), []).append(member)
    for group in alike.values():
        factors += [key for key in _differing(group) if key not in factors]
    return factors


def _differing(members: Sequence[Member]) -> list[str]:
    """Return the dotted settings in which configurations differ that should be equal."""
    if len(members) < 2 or not all(member.config for member in members):
        return []
    flat = [dict(_leaves(identity.settings(member.config))) for member in members]
    keys = dict.fromkeys(key for leaves in flat for key in leaves)
    return [key for key in keys if len({text(leaves.get(key, UNSET)) for leaves in flat}) > 1]


def _leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if not path and key == "seed":
            continue
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _completed(planned: Manifest, added: set[str]) -> dict[str, str]:
    """Add a level for every factor to the baseline, if it matches exactly one condition.

    Of all runs, the newest and the earlier ones, the first group with a unique match decides.
    """
    if not planned.baseline:
        return {}
    matching = [run for run in planned.runs if _matches(run, planned.baseline)]
    newest = [run for run in matching if run.signature in added]
    before = [run for run in matching if run.signature not in added]
    for runs in (matching, newest, before):
        levels = {tuple(run.factors.items()) for run in runs}
        if len(levels) == 1:
            return planned.baseline if runs is matching else dict(levels.pop())
    return planned.baseline


def _matches(run: PlannedRun, levels: Mapping[str, str]) -> bool:
    return all(run.factors.get(factor) == level for factor, level in levels.items())


def _at(config: Mapping[str, Any], factor: str) -> Any:
    node: Any = config
    for part in factor.replace("/", ".").split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _ABSENT
        node = node[part]
    return node
