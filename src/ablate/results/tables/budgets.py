"""Tables of cost: conditions at the same budget, speed of training, and the time to an accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablate.results import costs, formats
from ablate.results.comparisons import Comparison, Findings
from ablate.results.costs import MATCHED
from ablate.results.curves import Reached
from ablate.results.tables.table import Cell, Table, difference, number, probability, words
from ablate.store.metrics import DEFAULT, find, of_task


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
    metric = find(findings.metric)
    names = costs.pareto(findings.summaries, higher=metric.higher)
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
        f"The {len(names)} of {every} that no other one beats in both mean {metric.plainly} and MACs. "
        f"Differences from {findings.baseline}, paired by seed. "
        "The best of many means is partly the luckiest: what stands here is where to look, "
        "and not by how much it is ahead."
    )
    return Table("front", "The Pareto front", rows, note)


def speed(findings: Findings) -> Table:
    """Speed of training of each condition; no rows if no run recorded its waiting time."""
    measured = any(math.isfinite(summary.data_wait) for summary in findings.summaries)
    rows = [
        {
            "Condition": words(summary.condition),
            "Images/s": number(summary.throughput, formats.plain(summary.throughput, 0)),
            "Waiting for data": number(summary.data_wait, formats.share(summary.data_wait)),
            "Peak memory": number(summary.memory, formats.memory(summary.memory)),
            "MFU": number(summary.mfu, formats.share(summary.mfu)),
        }
        for summary in findings.summaries
        if measured
    ]
    note = (
        "Medians over the runs, as they happened to be trained. Waiting for data: share of the training time "
        "that the host waited for the next batch; a GPU may have been busy meanwhile with what was launched "
        "before. Peak memory: of the device's allocator on CUDA, of the process on a CPU. MFU: model FLOP "
        "utilisation, 6 × MACs × images/s over the dense peak of the device at the precision of the recipe; "
        f"{formats.NOTHING} where that peak is not known, as of CPUs."
    )
    return Table("speed", "Speed of training", rows, note)


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
    metric = found[0].metric if found else of_task(DEFAULT).selecting
    target = f"{found[0].target:.{metric.digits}f} {metric.unit}".rstrip() if found else formats.NOTHING
    whose = "" if found and found[0].asked else ", what the baseline's median run ends with"
    note = (
        f"To a validation {metric.plainly} of {target}{whose}; between epochs by a straight line. "
        "Medians are over the runs that reach it."
    )
    return Table("time_to_accuracy", f"Time to {metric.some}", rows, note)
