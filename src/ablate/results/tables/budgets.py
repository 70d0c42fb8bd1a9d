"""Tables of cost: conditions at the same budget, and the time to an accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.results import costs, formats
from ablate.results.comparisons import Comparison, Findings
from ablate.results.costs import MATCHED
from ablate.results.curves import Reached
from ablate.results.tables.table import Cell, Table, difference, number, probability, words


def matched(findings: Findings, comparisons: Sequence[Comparison]) -> Table:
    """Pairs of conditions with the same MACs."""
    digits = formats.decimals(each.interval for each in comparisons)
    macs = {summary.condition: summary.macs for summary in findings.summaries}
    rows = [
        {
            "Condition": words(each.condition),
            "Against": words(each.baseline),
            "MACs": number(macs[each.baseline], formats.human(macs[each.baseline])),
            "n": number(each.n, str(each.n)),
            f"{formats.difference_name(findings.metric)} [95 % interval]": difference(
                each.difference, each.interval, digits
            ),
            "p (Holm)": probability(each.p_holm),
        }
        for each in comparisons
    ]
    note = (
        f"All pairs of conditions whose multiply-accumulates are the same within {MATCHED:.0%}, but for "
        "pairs with the baseline, which stand above. Paired by seed; Holm-corrected over the rows."
    )
    return Table("matched_budget", "At the same budget", rows, note)


def front(findings: Findings) -> Table:
    """The Pareto front of mean accuracy and MACs, the cheapest first."""
    higher = not findings.metric.endswith("loss")
    names = costs.pareto(findings.summaries, higher=higher)
    by_name = {summary.condition: summary for summary in findings.summaries}
    compared = {comparison.condition: comparison for comparison in findings.comparisons}
    digits = formats.decimals(comparison.interval for comparison in compared.values())
    rows = []
    for summary in map(by_name.__getitem__, names):
        against = compared.get(summary.condition)
        rows.append(
            {
                "Condition": words(summary.condition),
                "Parameters": number(summary.parameters, formats.human(summary.parameters)),
                "MACs": number(summary.macs, formats.human(summary.macs)),
                "n": number(summary.n, str(summary.n)),
                f"{formats.metric_name(findings.metric)}, mean": number(
                    summary.mean, formats.plain(summary.mean, digits)
                ),
                f"{formats.difference_name(findings.metric)} [95 % interval]": Cell("baseline", 0.0)
                if against is None
                else difference(against.difference, against.interval, digits),
            }
        )
    every = formats.counted(len(findings.summaries), "condition")
    note = (
        f"The {len(names)} of {every} that no other one beats in both mean accuracy and MACs. Differences "
        f"from {findings.baseline}, paired by seed. The best of many means is partly the luckiest: what "
        "stands here is where to look, and not by how much it is ahead."
    )
    return Table("front", "The Pareto front", rows, note)


def reached(found: Sequence[Reached]) -> Table:
    """When each condition comes to a given validation accuracy."""
    rows = [
        {
            "Condition": words(each.condition),
            "Runs that reach it": number(each.reached, f"{each.reached} of {each.n}"),
            "Epochs (median)": number(each.epochs, formats.plain(each.epochs, 2)),
            "Training seconds (median)": number(each.seconds, formats.plain(each.seconds, 0)),
        }
        for each in found
    ]
    target = f"{found[0].target:.2f} %" if found else formats.NOTHING
    whose = "" if found and found[0].asked else ", what the baseline's median run ends with"
    note = (
        f"To a validation accuracy of {target}{whose}; between epochs by a straight line. Medians are over "
        "the runs that reach it."
    )
    return Table("time_to_accuracy", "Time to an accuracy", rows, note)
