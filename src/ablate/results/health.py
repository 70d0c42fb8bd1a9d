"""Health of a study: six checks, each passed, to be looked at, or failed, with one line that says why."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from ablate.results import formats
from ablate.results.comparisons import Findings, usable
from ablate.results.curves import column
from ablate.results.evidence import Evidence
from ablate.results.families import BONFERRONI
from ablate.store.folder import FINISHED
from ablate.store.metrics import find

PASS, WARN, FAIL = "pass", "warn", "fail"
LAST = 5  # the curve over the last of so many parts of the epochs should be flat
UNSTEADY = 2.0  # times the others' standard deviation, from which on a baseline is unsteady


class Check(NamedTuple):
    """One check."""

    name: str
    state: str  # PASS, WARN or FAIL
    line: str


def checks(evidence: Evidence, *, mixed: int, unknown: int) -> list[Check]:
    """The checks of a study, in the order in which a reader should worry.

    Args:
        evidence: of the study.
        mixed: modules of which the runs have different texts.
        unknown: finished runs whose code was not recorded.
    """
    findings = evidence.findings
    return [
        _runs(findings),
        _code(mixed, unknown),
        _converged(evidence),
        _seeds(findings),
        _variance(findings),
        _baseline(evidence),
    ]


def _runs(findings: Findings) -> Check:
    planned, left = len(findings.runs), len(findings.unfinished())
    if left == planned:
        return Check("Runs", FAIL, "no run counts yet")
    if left:
        return Check("Runs", WARN, f"{left} of {formats.counted(planned, 'planned run')} do not count yet")
    return Check(
        "Runs", PASS, f"all {planned} planned runs count" if planned > 1 else "the planned run counts"
    )


def _code(mixed: int, unknown: int) -> Check:
    if mixed:
        return Check("Code", FAIL, f"runs have different texts of {formats.counted(mixed, 'module')}")
    if unknown:
        return Check("Code", WARN, f"the code of {formats.counted(unknown, 'run')} was not recorded")
    return Check("Code", PASS, "all runs were computed by the same code")


def _converged(evidence: Evidence) -> Check:
    name = "Convergence"
    if evidence.not_converged:
        return Check(name, FAIL, f"{formats.counted(len(evidence.not_converged), 'run')} did not learn")
    gains = late_gains(evidence.metrics)
    if not len(gains):
        return Check(name, WARN, f"cannot be seen: no finished run has {LAST} epochs")
    gain, margin = float(np.median(gains)), evidence.findings.margin.value
    metric = find(column(evidence.metrics))
    said = f"in the last fifth of the epochs the best validation {metric.words} rose by {gain:.2g} (median)"
    if not metric.higher:
        said = said.replace("rose", "fell")
    if not math.isfinite(margin) or gain > margin:
        return Check(name, WARN, f"still learning: {said}")
    return Check(name, PASS, f"flat: {said}, within the margin")


def late_gains(metrics: pd.DataFrame) -> np.ndarray:
    """Gain of each finished run's best validation figure in its last fifth of epochs."""
    if metrics.empty:
        return np.array([])
    shown = column(metrics)
    up = 1 if find(shown).higher else -1
    found = []
    for _, run in metrics[metrics["state"] == FINISHED].sort_values("epoch").groupby("signature"):
        curve = up * run[shown].to_numpy(dtype=float)
        if len(curve) >= LAST:
            before = len(curve) - len(curve) // LAST
            found.append(float(np.nanmax(curve) - np.nanmax(curve[:before])))
    return np.array(found)


def _seeds(findings: Findings) -> Check:
    compared = findings.comparisons
    if not compared:
        return Check("Seeds", WARN, "one condition: there is nothing to compare")
    fewest = min(each.n for each in compared)
    if fewest < 2:
        return Check("Seeds", FAIL, "a comparison has fewer than two pairs: no interval, no verdict")
    needed = [each.seeds_for_equivalence or math.inf for each in compared]
    short = sum(each.n < wanted for each, wanted in zip(compared, needed, strict=True))
    pairs = f"n = {fewest}"
    if not short:
        return Check("Seeds", PASS, f"{pairs}: enough to show that a condition is on par, with 80 % power")
    most = max(needed)
    wanted = f"up to {most:.0f} are needed" if math.isfinite(most) else "no margin says how many are needed"
    where = f"in {short} of {formats.counted(len(compared), 'comparison')}"
    return Check("Seeds", WARN, f"{pairs}: too few to show that a condition is on par {where}; {wanted}")


def _variance(findings: Findings) -> Check:
    family, name = findings.family, "Equal variance"
    if family.method == BONFERRONI:
        return Check(name, WARN, f"intervals are corrected one by one: {family.reason}")
    if math.isnan(family.equal_variance_p):
        return Check(name, PASS, "nothing is pooled over conditions")
    return Check(name, PASS, f"nothing speaks against it (p = {family.equal_variance_p:.2f})")


def _baseline(evidence: Evidence) -> Check:
    findings, name = evidence.findings, "Baseline"
    summaries = {each.condition: each for each in findings.summaries}
    own = summaries.pop(findings.baseline)
    runs = findings.groups[findings.baseline]
    if not usable(runs, findings.metric).any():
        return Check(name, FAIL, f"{findings.baseline} has no run that counts")
    if set(runs["signature"]) & set(evidence.not_converged):
        return Check(name, FAIL, f"{findings.baseline} did not learn in every run")
    others = [each.sd for each in summaries.values() if math.isfinite(each.sd)]
    typical = float(np.median(others)) if others else math.nan
    if not (math.isfinite(own.sd) and typical > 0):
        return Check(name, PASS, f"{findings.baseline} learned in every run")
    line = f"its standard deviation is {own.sd / typical:.1f} times that of the others (median)"
    if own.sd > UNSTEADY * typical:
        return Check(name, WARN, f"{findings.baseline} is unsteady: {line}")
    return Check(name, PASS, f"{findings.baseline} learned in every run; {line}")
