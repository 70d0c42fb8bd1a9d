"""Table of components: which condition has which, as papers show an ablation."""

from __future__ import annotations

from ablate.results import formats
from ablate.results.comparisons import Findings
from ablate.results.conditions import short_levels, short_names
from ablate.results.tables.conditions import basis, mean_cell
from ablate.results.tables.table import Cell, Table, difference, words

TICK = "✓"


def components(findings: Findings) -> Table:
    """A row for each condition and a column for each factor; no rows for studies of fewer than two factors.

    A factor with two levels is a component that a condition has, ticked, or has not: the level that the
    baseline lacks. One with more levels shows them.
    """
    title, factors = "Components", findings.manifest.factors
    if len(factors) < 2 or not findings.comparisons:
        return Table("components", title, [])
    compared = {each.condition: each for each in findings.comparisons}
    digits = formats.decimals(each.interval for each in findings.comparisons)
    levels = {name: findings.groups[name].iloc[0] for name in (each.condition for each in findings.summaries)}
    columns = [
        _column(factor, short, {name: str(row[factor]) for name, row in levels.items()}, findings.baseline)
        for factor, short in zip(factors, short_names(factors), strict=True)
    ]
    mean = f"{formats.metric_name(findings.metric)}, mean ± sd (n)"
    change = f"{formats.difference_name(findings.metric)} [95 % interval]"
    rows = []
    for summary in findings.summaries:
        each = compared.get(summary.condition)
        rows.append(
            {
                "Condition": words(summary.condition),
                **{head: cells[summary.condition] for head, cells in columns},
                mean: mean_cell(summary, digits),
                change: Cell("baseline", None)
                if each is None
                else difference(each.difference, each.interval, digits),
                "Verdict": words("" if each is None or each.verdict is None else str(each.verdict)),
            }
        )
    note = f"{TICK}: the condition has the level at the head of the column; without it, the baseline's."
    return Table("components", title, rows, " ".join([note, *basis(findings), findings.margin.sentence]))


def _column(factor: str, short: str, levels: dict[str, str], baseline: str) -> tuple[str, dict[str, Cell]]:
    """The head of a factor's column, and the cell of each condition."""
    names = short_levels(levels.values())
    if len(names) == 2:
        (other,) = (level for level in names if level != levels[baseline])
        ticks = {name: words(TICK if level == other else "") for name, level in levels.items()}
        return f"{short}={names[other]}", ticks
    return short, {name: words(names[level]) for name, level in levels.items()}
