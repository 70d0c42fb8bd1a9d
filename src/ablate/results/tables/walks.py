"""The table of a study's walks."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.results import formats
from ablate.results.comparisons import Findings
from ablate.results.paths import Path
from ablate.results.statistics import smallest_p
from ablate.results.tables.conditions import uncounted
from ablate.results.tables.table import Cell, Table, difference, number, probability, tested, words


def roadmap(findings: Findings, paths: Sequence[Path], not_converged: int = 0) -> Table:
    """Every step of every walk, what it changes, and what has come together since the start."""
    steps = [step for path in paths for step in path.steps]
    digits = formats.decimals(step.step.interval for step in steps if step.step)
    title = f"{formats.difference_name(findings.metric)} [95 % interval]"
    rows = [
        {
            "Walk": words(path.name),
            "Step": words(f"{index}. {step.condition}"),
            formats.metric_name(findings.metric): number(step.mean, formats.plain(step.mean, digits)),
            f"Step: {title[0].lower()}{title[1:]}": Cell("start", None)
            if step.step is None
            else difference(step.step.difference, step.step.interval, digits),
            "p (Holm)": Cell("", None) if step.step is None else probability(step.step.p_holm),
            "Since the start": Cell("", None)
            if step.so_far is None
            else difference(step.so_far.difference, step.so_far.interval, digits),
        }
        for path in paths
        for index, step in enumerate(path.steps)
    ]
    compared = {(step.step.condition, step.step.baseline): step.step.n for step in steps if step.step}
    fewest, most = min(compared.values(), default=0), max(compared.values(), default=0)
    sentences = [
        f"Steps are paired by seed, n = {fewest} or more; 95 % Student's t intervals.",
        tested("sign-flip", len(compared), "step", formats.counted(most, "pair"), smallest_p(most)),
        *uncounted(findings, not_converged),
    ]
    return Table("roadmap", "Steps", rows, " ".join(sentences))
