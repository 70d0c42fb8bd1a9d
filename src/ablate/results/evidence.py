"""All that a study shows, in one place: what the page, the figures and the records are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from ablate.results import (
    allpairs,
    beyond,
    classes,
    comparisons,
    costs,
    curves,
    factorial,
    figures,
    images,
    paths,
    ranks,
    tables,
)
from ablate.results.allpairs import AllPairs
from ablate.results.classes import OfClass
from ablate.results.comparisons import Comparison, Findings
from ablate.results.curves import Reached
from ablate.results.exchanged import Exchange
from ablate.results.factorial import Factorial
from ablate.results.images import Images
from ablate.results.paths import Path
from ablate.results.predictions import Kept
from ablate.results.ranks import Ranks
from ablate.results.tables import Table
from ablate.store.manifest import Manifest
from ablate.store.metrics import find


@dataclass(frozen=True)
class Evidence:
    """The collected runs of a study and every analysis that its design allows."""

    findings: Findings
    metrics: pd.DataFrame  # one row per epoch
    factorial: Factorial | None
    paths: list[Path]
    matched: list[Comparison] | None  # None: too many to say anything
    reached: list[Reached]
    not_converged: dict[str, str]  # reasons, by signature
    classes: list[OfClass]  # none where the task has no figures by class
    images: Images | None  # None where runs kept no predictions of single images
    by_class: pd.DataFrame | None = None  # test figures of every run by class
    exchanges: tuple[Exchange, ...] = ()  # test images gained and lost, of the conditions that are shown
    selection: str = ""  # what a reader selected of the study, in words; empty: all of it

    @property
    def manifest(self) -> Manifest:
        """The manifest of the study."""
        return self.findings.manifest

    @cached_property
    def all_pairs(self) -> AllPairs | None:
        """Every pair of conditions as one family; None where there are too few or too many."""
        figures = {
            name: comparisons.by_seed(runs, self.findings.metric)
            for name, runs in self.findings.groups.items()
        }
        higher = find(self.findings.metric).higher
        return allpairs.compare(figures, paired=self.findings.paired, higher=higher)

    @cached_property
    def beyond(self) -> beyond.Beyond | None:
        """Effects over hosts, data sets or studies; None where a study has one of each."""
        findings, higher = self.findings, find(self.findings.metric).higher
        return beyond.analyse(self.manifest, findings.runs, higher=higher) if findings.paired else None

    @cached_property
    def ranks(self) -> Ranks | None:
        """Average ranks over hosts, data sets or studies; None where a study has too few of them."""
        findings = self.findings
        return ranks.analyse(self.manifest, findings.runs, higher=find(findings.metric).higher)

    @cached_property
    def tables(self) -> list[Table]:
        """Its tables, the study's own first; those without rows are left out."""
        odd = len(self.not_converged)
        first = tables.study_table(self.findings, odd)
        if self.selection:
            first = replace(first, note=f"A selection of the study: {self.selection}. {first.note}")
        found = [first, tables.components(self.findings)]
        if self.paths:
            found.append(tables.roadmap(self.findings, self.paths, odd))
        if self.factorial is not None:
            found.append(tables.effects(self.findings, self.factorial, odd))
            found.append(tables.interactions(self.findings, self.factorial))
            found.append(tables.variance(self.factorial))
        found.append(tables.by_class(self.findings, self.classes))
        found.append(tables.on_images(self.images))
        found.append(tables.over_places(self.findings.metric, self.beyond))
        found.append(tables.ranks(self.findings.metric, self.ranks))
        found.append(tables.all_pairs(self.findings, self.all_pairs))
        found.append(tables.matched(self.findings, self.matched or []))
        found.append(tables.reached(self.reached))
        found.append(tables.speed(self.findings))
        found.append(tables.details(self.findings))
        return [table for table in found if table.rows]

    def drawings(self) -> dict[str, Callable[[], Figure]]:
        """Functions that draw the figures, by the name of their files."""
        found = self.findings
        drawn: dict[str, Callable[[], Figure]] = {}
        if self.paths:
            drawn["roadmap"] = lambda: figures.roadmap(found, self.paths)
        if (factors := self.factorial) is not None:
            drawn["main_effects"] = lambda: figures.main_effects(found, factors)
            drawn["interactions"] = lambda: figures.heat_map(found, factors)
        if (over := self.beyond) is not None:
            drawn["places"] = lambda: figures.places(found.metric, over)
        if (ranked := self.ranks) is not None:
            drawn["ranks"] = lambda: figures.critical_difference(ranked)
        if len(found.summaries) > 1:
            drawn["differences"] = lambda: figures.forest(found)
            if found.paired:
                drawn["pairs"] = lambda: figures.slopes(found)
            if any(math.isfinite(each.standard_error) for each in found.comparisons):
                drawn["confidence"] = lambda: figures.confidence_curves(found)
        else:
            drawn["seed_noise"] = lambda: figures.seed_noise(found)
        if self.classes:
            drawn["by_class"] = lambda: figures.by_class(found, self.classes)
        drawn["accuracy_macs"] = lambda: figures.accuracy_against_macs(found)
        drawn["learning_curves"] = lambda: figures.learning_curves(found, self.metrics)
        if curves.others(self.metrics):
            drawn["all_curves"] = lambda: figures.all_curves(found, self.metrics)
        return drawn


class Answers(NamedTuple):
    """Answers to the test images, as far as runs kept them.

    Attributes:
        by_class: test figures by class, as `classes.collect` returns them; None if there are none.
        kept: predictions, as `images.collect` returns them; None if there are none.
    """

    by_class: pd.DataFrame | None = None
    kept: Mapping[str, Kept] | None = None


NO_ANSWERS = Answers()


def examine(
    manifest: Manifest,
    runs: pd.DataFrame,
    metrics: pd.DataFrame,
    *,
    paired: bool = True,
    target: float | None = None,
    margin: float | None = None,
    answers: Answers = NO_ANSWERS,
) -> Evidence:
    """Every analysis that a study's design allows.

    Args:
        manifest: its question, baseline, factors and walks.
        runs: one row per run, as `collect` returns them.
        metrics: one row per epoch, as `collect_metrics` returns them.
        paired: whether runs are paired by seed; else comparisons with the baseline are unpaired,
            and marked so. Factors and walks are paired by seed always, and left out if not.
        target: validation accuracy in percent, whose time is reported; None: what the
            baseline's median run ends with.
        margin: of equivalence, chosen for this report; None: the study's own, or a default.
        answers: to the test images.

    Raises:
        UserError: see `comparisons.analyse` and `paths.analyse`.
    """
    findings = comparisons.analyse(manifest, runs, paired=paired, margin=margin)
    by_class, kept = answers
    return Evidence(
        findings=findings,
        metrics=metrics,
        factorial=factorial.analyse(manifest, runs) if paired else None,
        paths=paths.analyse(findings) if paired else [],
        matched=costs.matched(findings) if paired else [],
        reached=curves.time_to(findings, metrics, target),
        not_converged=curves.not_converged(metrics),
        classes=classes.compare(findings, by_class) if by_class is not None and paired else [],
        images=images.compare(findings, kept) if kept and paired else None,
        by_class=by_class,
    )
