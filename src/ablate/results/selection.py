"""A reader's selection for one report: another baseline or metric, and a part of the runs of studies.

A selection changes the manifest only. Every analysis, table and figure follows from that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ablate.errors import UserError, unknown
from ablate.results.conditions import UNSET, labels, short_names
from ablate.store import metrics
from ablate.store.manifest import Manifest, PlannedRun

STUDY = "study"  # the factor that separates conditions of two studies that have the same name


@dataclass(frozen=True)
class Selection:
    """A selection in words, which are FACTOR=LEVEL, FACTOR=LEVEL,LEVEL or names of conditions.

    Attributes:
        baseline: the words that describe the condition to compare with; none: the study's own.
        metric: what is compared, e.g. test_loss; None: the study's own.
        seeds: runs with other seeds are left out; none: all seeds.
        only: runs with other levels are left out. Words of one factor are alternatives.
        drop: runs with any of these levels are left out.
    """

    baseline: Sequence[str] = ()
    metric: str | None = None
    seeds: Sequence[int] = ()
    only: Sequence[str] = ()
    drop: Sequence[str] = ()

    def __bool__(self) -> bool:
        return any((self.baseline, self.metric, self.seeds, self.only, self.drop))

    def __str__(self) -> str:
        """The selection as the page states it."""
        parts = []
        if self.only:
            parts.append(f"only {'; '.join(self.only)}")
        if self.drop:
            parts.append(f"without {'; '.join(self.drop)}")
        if self.seeds:
            parts.append(f"seeds {', '.join(map(str, self.seeds))}")
        if self.baseline:
            parts.append(f"baseline {'; '.join(self.baseline)}")
        if self.metric:
            parts.append(f"metric {self.metric}")
        return ", ".join(parts)

    def apply(self, manifest: Manifest) -> Manifest:
        """Return the manifest of what is selected. Walks that lost a condition are left out.

        A margin belongs to its metric: with another metric the study has none.

        Raises:
            UserError: a word names no factor, level or condition, or nothing is left.
        """
        kept = _intersection(manifest, self.only) if self.only else set(range(len(manifest.runs)))
        dropped = {index for word in self.drop for index in _find(manifest, word)[1]}
        known = {run.seed for run in manifest.runs}
        if missing := sorted(set(self.seeds) - known):
            raise UserError(
                f"study {manifest.name} has no seed {', '.join(map(str, missing))}",
                f"its seeds: {', '.join(map(str, sorted(known)))}",
            )
        wanted = set(self.seeds) or known
        runs = [
            run
            for index, run in enumerate(manifest.runs)
            if index in kept and index not in dropped and run.seed in wanted
        ]
        if not runs:
            raise UserError(f"nothing of study {manifest.name} is selected by {self}", "select less strictly")
        found = replace(manifest, runs=runs, baseline=self._baseline(manifest))
        if self.metric not in (None, manifest.metric):
            known_metrics = sorted({column for task in metrics.TASKS.values() for column in task.columns})
            if self.metric not in known_metrics:
                raise unknown("metric", str(self.metric), known_metrics)
            found = replace(found, metric=str(self.metric), margin=None, margin_after=0)
        names = set(labels(found))
        return replace(
            found, paths={path: steps for path, steps in found.paths.items() if names.issuperset(steps)}
        )

    def _baseline(self, manifest: Manifest) -> dict[str, str]:
        if not self.baseline:
            return manifest.baseline
        runs = [manifest.runs[index] for index in _intersection(manifest, self.baseline)]
        levels = {tuple(_levels(manifest, run)) for run in runs}
        if len(levels) != 1:
            named = dict.fromkeys(labels(manifest))
            raise UserError(
                f"the baseline {'; '.join(self.baseline)} is {len(levels) or 'no'} conditions of study "
                f"{manifest.name}",
                f"name one: {'; '.join(named)}",
            )
        return dict(zip(manifest.factors, levels.pop(), strict=True))


def combine(manifests: Sequence[Manifest]) -> Manifest:
    """Return several studies as one: all runs, the baseline, metric and margin of the first.

    A run that two studies share counts once. Conditions of one name that differ in a setting, which no factor
    shows, get their study as a factor.

    Raises:
        UserError: the studies compare different metrics.
    """
    first = manifests[0]
    if len(manifests) == 1:
        return first
    if len(of := {manifest.metric for manifest in manifests}) > 1:
        raise UserError(
            f"the studies compare different metrics: {', '.join(sorted(of))}",
            "select one that all have: --metric test_loss",
        )
    factors = list(dict.fromkeys(factor for manifest in manifests for factor in manifest.factors))
    placed: dict[str, tuple[str, PlannedRun]] = {}
    for manifest in manifests:
        for run in manifest.runs:
            placed.setdefault(run.signature, (manifest.name, run))
    runs = [
        replace(run, factors={factor: run.factors.get(factor, UNSET) for factor in factors})
        for _, run in placed.values()
    ]
    baseline = {factor: first.baseline.get(factor, UNSET) for factor in factors} if first.baseline else {}
    keys: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        keys.setdefault(tuple(run.factors.values()), set()).add(run.pair_key)
    if any(len(different) > 1 for different in keys.values()):
        factors.insert(0, STUDY)
        names = [name for name, _ in placed.values()]
        runs = [
            replace(run, factors={STUDY: name, **run.factors}) for name, run in zip(names, runs, strict=True)
        ]
        baseline = {STUDY: first.name, **baseline} if baseline else {}
    return replace(
        first,
        name=" + ".join(manifest.name for manifest in manifests),
        question=" ".join(manifest.question for manifest in manifests if manifest.question),
        command="\n".join(manifest.command for manifest in manifests if manifest.command),
        factors=factors,
        baseline=baseline,
        paths={},
        impossible={levels: why for manifest in manifests for levels, why in manifest.impossible.items()},
        runs=runs,
    )


def _levels(manifest: Manifest, run: PlannedRun) -> list[str]:
    return [run.factors.get(factor, UNSET) for factor in manifest.factors]


def _intersection(manifest: Manifest, words: Iterable[str]) -> set[int]:
    """Indices of the runs that have, of every named factor, one of the named levels."""
    by_factor: dict[str, set[int]] = {}
    for word in words:
        factor, runs = _find(manifest, word)
        by_factor.setdefault(factor, set()).update(runs)
    return set.intersection(*by_factor.values())


def _find(manifest: Manifest, word: str) -> tuple[str, set[int]]:
    """Return the factor that a word names, and the indices of its runs; a condition has no factor.

    Raises:
        UserError: there is no such factor, level or condition.
    """
    named = labels(manifest)
    if word in named:
        return "", {index for index, label in enumerate(named) if label == word}
    given, separator, levels = word.partition("=")
    short = dict(zip(short_names(manifest.factors), manifest.factors, strict=True))
    factor = given if given in manifest.factors else short.get(given)
    if not separator or factor is None:
        choices = dict.fromkeys([*named, *(f"{name}=…" for name in short)])
        raise unknown(f"condition or factor of study {manifest.name}", word, choices)
    known = [run.factors.get(factor, UNSET) for run in manifest.runs]
    wanted = levels.split(",") if levels not in known else [levels]
    for level in wanted:
        if level not in known:
            raise unknown(f"level of {given}", level, set(known))
    return factor, {index for index, level in enumerate(known) if level in wanted}
