"""Table of differences by class."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.results import formats
from ablate.results.classes import OfClass
from ablate.results.comparisons import Findings
from ablate.results.tables.table import Table, difference, number, words


def by_class(findings: Findings, classes: Sequence[OfClass]) -> Table:
    """Differences from the baseline in each class; no rows where the task has no figures by class."""
    digits = formats.decimals(each.interval for one in classes for each in one.comparisons)
    rows = [
        {
            "Condition": words(each.condition),
            "Class": words(one.name),
            "n": number(each.n, str(each.n)),
            f"{findings.baseline}, mean": number(
                each.mean_baseline, formats.plain(each.mean_baseline, digits)
            ),
            "mean": number(each.mean_condition, formats.plain(each.mean_condition, digits)),
            f"{formats.difference_name(findings.metric)} [95 % interval]": difference(
                each.difference, each.interval, digits
            ),
        }
        for condition in [each.condition for each in findings.comparisons]
        for one in classes
        for each in one.comparisons
        if each.condition == condition
    ]
    note = (
        f"{formats.metric_name(findings.metric)} of each class, paired by seed. Intervals are not corrected "
        "for the number of classes: of twenty without any difference one is expected to exclude zero."
    )
    return Table("by_class", "By class", rows, note)
