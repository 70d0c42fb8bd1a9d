"""Verdicts: one of four words for each comparison with the baseline, and the margin that they rest on."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ablate.errors import UserError
from ablate.results import equivalence, formats
from ablate.results.statistics import Interval
from ablate.store.manifest import Manifest, is_margin
from ablate.store.metrics import find

BETTER, WORSE, ON_PAR, UNDECIDED = "better", "worse", "on par", "undecided"
WORDS = (BETTER, WORSE, ON_PAR, UNDECIDED)
NEGLIGIBLE = "measurable, negligible"
STUDY, REPORT, DEFAULT = "study", "report", "default"  # origins of a margin


@dataclass(frozen=True)
class Margin:
    """The largest difference that counts as negligible, in the unit of the metric; NaN if there is none.

    Attributes:
        value: of the margin.
        origin: STUDY (`study.margin`), REPORT (`ablate report --margin`) or DEFAULT (from seed noise).
        after: finished runs when the study set it.
        unit: of the metric's differences.
        fixed: the study's own margin, which a report's replaces; None if there is none.
        detail: what a default was computed from.
    """

    value: float
    origin: str
    after: int = 0
    unit: str = ""
    fixed: float | None = None
    detail: str = ""

    @property
    def text(self) -> str:
        """The value with its unit: '0.5 pp'."""
        return f"{self.number} {self.unit}".strip() if math.isfinite(self.value) else self.number

    @property
    def number(self) -> str:
        """The value: as it was given, or three digits of a default."""
        if not math.isfinite(self.value):
            return "none"
        return f"{self.value:.3g}" if self.origin == DEFAULT else f"{self.value:g}"

    @property
    def mark(self) -> str:
        """The origin in two or three words, for every place that shows the margin; empty if fixed before."""
        match self.origin:
            case "default":
                return "default" if math.isfinite(self.value) else ""
            case "report":
                return "chosen after the runs"
        return f"set after {formats.counted(self.after, 'finished run')}" if self.after else ""

    @property
    def marked(self) -> str:
        """The number with its mark: '0.42, default'."""
        return f"{self.number}, {self.mark}" if self.mark else self.number

    @property
    def words(self) -> str:
        """The margin within a sentence: 'margin 0.5', 'default margin 0.42'."""
        default = self.origin == DEFAULT
        return f"default margin {self.number}" if default else f"margin {self.number} {self.mark}".strip()

    @property
    def sentence(self) -> str:
        """The margin and its origin in one sentence."""
        if not math.isfinite(self.value):
            return f"Margin: none, because {self.detail}; without a margin no condition can be on par."
        match self.origin:
            case "default":
                return (
                    f"Margin: ±{self.text}, a default that was computed after the runs: {self.detail}. "
                    "Fix your own before the runs with study.margin."
                )
            case "report":
                fixed = "" if self.fixed is None else f" instead of {self.fixed:g}, which the study had set"
                return f"Margin: ±{self.text}, chosen after the runs (--margin){fixed}."
        if self.after:
            return (
                f"Margin: ±{self.text}, set when {formats.counted(self.after, 'run')} had finished already."
            )
        return f"Margin: ±{self.text}, fixed before the runs (study.margin)."


@dataclass(frozen=True)
class Verdict:
    """The word of a comparison; `negligible` marks a difference that is measurable and inside the margin."""

    word: str
    negligible: bool = False

    def __str__(self) -> str:
        return f"{self.word} ({NEGLIGIBLE})" if self.negligible else self.word


def margin(manifest: Manifest, baseline: str, figures: Collection[float], chosen: float | None) -> Margin:
    """The margin of a study: the one chosen for this report, the study's own, or a default.

    The default is one standard deviation of the baseline over its seeds: a difference below it is smaller
    than what another seed changes in a single run, so that nobody who trains once would notice it.

    Args:
        manifest: of the study.
        baseline: its condition.
        figures: of the baseline's usable runs.
        chosen: for this report, or None.

    Raises:
        UserError: the chosen margin is not a positive finite number.
    """
    unit = "pp" if formats.in_percent(manifest.metric) else ""
    if chosen is not None:
        if not is_margin(chosen):
            raise UserError(
                f"--margin {chosen:g} is not a positive number",
                "give the largest negligible difference, in the unit of the metric: --margin 0.5",
            )
        return Margin(chosen, REPORT, unit=unit, fixed=manifest.margin)
    if manifest.margin is not None:
        return Margin(manifest.margin, STUDY, manifest.margin_after, unit)
    values = np.array(list(figures), dtype=float)
    if values.size < 2 or np.ptp(values) <= 1e-9 * np.abs(values).max():
        why = f"{baseline} has fewer than two finished seeds that differ, and study.margin is not set"
        return Margin(math.nan, DEFAULT, unit=unit, detail=why)
    detail = f"one standard deviation of {baseline} over its {values.size} seeds"
    return Margin(float(values.std(ddof=1)), DEFAULT, unit=unit, detail=detail)


def decide(simultaneous: Interval, interval_90: Interval, margin: float, metric: str) -> Verdict:
    """The word that two intervals of a difference from the baseline carry.

    Args:
        simultaneous: 95 %, over all comparisons of the family; `better` and `worse` need it without zero.
        interval_90: of this comparison; `on par` needs it inside ±margin (two one-sided tests at 5 %).
        margin: of equivalence; NaN if there is none.
        metric: says whether higher values are better.
    """
    low, high = simultaneous
    differs = low > 0 or high < 0
    if equivalence.within(interval_90, margin):
        return Verdict(ON_PAR, negligible=differs)
    if differs:
        return Verdict(BETTER if (low > 0) == find(metric).higher else WORSE)
    return Verdict(UNDECIDED)
