"""Table of all pairs of conditions, as letters."""

from __future__ import annotations

from ablate.results import formats
from ablate.results.allpairs import TUKEY, AllPairs
from ablate.results.comparisons import Findings
from ablate.results.tables.conditions import mean_cell
from ablate.results.tables.table import Table, words
from ablate.store.metrics import find


def all_pairs(findings: Findings, found: AllPairs | None) -> Table:
    """A row for each condition, the best first, with its letters; no rows where pairs are not summed up."""
    title = "All pairs"
    if found is None:
        return Table("all_pairs", title, [])
    metric = find(findings.metric)
    digits = formats.decimals(pair.interval for pair in found.pairs)
    mean = f"{formats.metric_name(findings.metric)}, mean ± sd (n)"
    summaries = [summary for summary in findings.summaries if summary.condition in found.letters]
    below: dict[str, list[str]] = {summary.condition: [] for summary in summaries}
    for pair in found.pairs:
        if pair.different:
            first_is_better = (pair.difference > 0) == metric.higher
            better, worse = (pair.first, pair.second) if first_is_better else (pair.second, pair.first)
            below[better].append(worse)
    ranked = sorted(summaries, key=lambda one: -one.mean if metric.higher else one.mean)
    rows = [
        {
            "Condition": words(summary.condition),
            mean: mean_cell(summary, digits),
            "Letters": words(found.letters[summary.condition]),
            "Better than": words("; ".join(below[summary.condition])),
        }
        for summary in ranked
    ]
    count = len(found.pairs)
    how = (
        "Tukey’s intervals from the two-way layout of seeds and conditions"
        if found.method == TUKEY
        else f"t intervals with Bonferroni’s correction, because {found.reason}"
    )
    note = (
        f"One family of all {count} pairs, at 95 %: {how}. Conditions that share a letter do not differ by "
        "it, which does not say that they are equal: the verdicts do."
    )
    return Table("all_pairs", title, rows, note)
