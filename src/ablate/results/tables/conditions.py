"""The table of a study's conditions, and that of its comparisons in detail."""

from __future__ import annotations

import math

from ablate.results import formats
from ablate.results.comparisons import Comparison, Findings, Summary
from ablate.results.sentences import RULE, family
from ablate.results.tables.table import Cell, Table, difference, number, probability, tested, words
from ablate.store.folder import FINISHED

FEW_PAIRS = 5


def study_table(findings: Findings, not_converged: int = 0) -> Table:
    """Cost, accuracy and difference from the baseline, one row per condition.

    Decimals follow the width of the intervals, which are 95 % Student's t (Welch's if unpaired).

    Args:
        findings: of the study.
        not_converged: how many of the finished runs did not; they count, and the note says so.
    """
    compared = findings.comparisons
    by_condition = {comparison.condition: comparison for comparison in compared}
    digits = formats.decimals(
        [comparison.interval for comparison in compared]
        or [summary.interval for summary in findings.summaries]
    )
    mean_title = f"{formats.metric_name(findings.metric)}, mean ± sd (n)"
    rows = [
        {
            "Condition": words(summary.condition),
            "Parameters": number(summary.parameters, formats.human(summary.parameters)),
            "MACs": number(summary.macs, formats.human(summary.macs)),
            "Images/s": number(summary.throughput, formats.plain(summary.throughput, 0)),
            "Memory": number(summary.memory, formats.memory(summary.memory)),
            mean_title: mean_cell(summary, digits),
            **(_comparison_cells(by_condition.get(summary.condition), findings, digits) if compared else {}),
        }
        for summary in findings.summaries
    ]
    return Table("table", "Conditions", rows, footnote(findings, not_converged))


def short_table(findings: Findings) -> Table:
    """The columns of the study's table that fit a terminal: accuracy, difference and verdict by condition."""
    whole = study_table(findings)
    mean = f"{formats.metric_name(findings.metric)}, mean ± sd (n)"
    difference_title = f"{formats.difference_name(findings.metric)} [95 % interval]"
    titles = {
        "Condition": "Condition",
        mean: mean.replace(", mean", "\nmean"),
        difference_title: difference_title.replace(" [", "\n["),
        f"Verdict (margin {findings.margin.marked})": "Verdict",
    }
    rows = [
        {short: row[title] for title, short in titles.items() if title in whole.columns} for row in whole.rows
    ]
    margin = [findings.margin.sentence] if findings.comparisons else []
    note = " ".join([*basis(findings), *margin, *uncounted(findings)])
    return Table("short", "Conditions", rows, note)


def details(findings: Findings) -> Table:
    """Every comparison with both intervals, its p-values and how many seeds it would need."""
    digits = formats.decimals(comparison.interval for comparison in findings.comparisons) + 1
    rows = [
        {
            "Condition": words(each.condition),
            "n": number(each.n, str(each.n)),
            "Without a pair" if each.paired else "Without a figure": number(each.missing, str(each.missing)),
            "Mean": number(each.mean_condition, formats.plain(each.mean_condition, digits)),
            "Baseline": number(each.mean_baseline, formats.plain(each.mean_baseline, digits)),
            "Difference": number(each.difference, formats.signed(each.difference, digits)),
            "t interval": _bounds(each.interval, digits),
            "BCa interval": _bounds(each.bootstrap, digits),
            "p": probability(each.p),
            "Smallest p": probability(each.smallest_p),
            "p (Holm)": probability(each.p_holm),
            **({"p (max-t)": probability(each.p_max)} if each.paired else {}),
            "p (TOST)": probability(each.p_equivalence),
            "Seeds needed": _seeds(each.seeds_needed),
            "Seeds for on par": _seeds(each.seeds_for_equivalence),
        }
        for each in findings.comparisons
    ]
    margin = findings.margin
    note = (
        "p (max-t): sign flips of whole seeds, step-down over all comparisons (Westfall and Young), which "
        "supposes no distribution. "
        if findings.paired
        else ""
    )
    if math.isfinite(margin.value):
        note += (
            f"p (TOST): two one-sided t-tests against the margin of ±{margin.text}"
            f"{f' ({margin.mark})' if margin.mark else ''}, each comparison by itself. "
        )
    note += (
        "Seeds needed: with how many a t-test at 5 % would see a true difference of this effect size with "
        "80 % power; an estimate from few seeds is itself uncertain, and too optimistic for differences that "
        "were singled out because they are large. Seeds for on par: with how many two one-sided tests at 5 % "
        "would show equivalence within the margin with 80 % power, if there is no true difference and the "
        "standard deviation is the one observed."
    )
    return Table("comparisons", "Comparisons in detail", rows, note)


def basis(findings: Findings) -> list[str]:
    """Sentences on what the differences are from, how they are paired, and n."""
    compared = findings.comparisons
    pairs = [comparison.n for comparison in compared]
    if not compared:
        sentences = [f"One condition; its mean has the 95 % interval {_mean_interval(findings)}."]
    elif findings.paired:
        sentences = [f"Differences from {findings.baseline}, paired by seed; 95 % Student's t intervals."]
    else:
        sentences = [
            f"Differences from {findings.baseline}, UNPAIRED as requested; 95 % Welch intervals, "
            "permutation tests."
        ]
    if pairs:
        fewest, most = min(pairs), max(pairs)
        kind = "pair" if findings.paired else "run"
        sentences.append(f"n = {fewest if fewest == most else f'{fewest} to {most}'} {kind}s a comparison.")
    return sentences


def footnote(findings: Findings, not_converged: int = 0) -> str:
    """Footnote of the table: n, the smallest p that it can reach, and what is missing."""
    compared = findings.comparisons
    pairs = [comparison.n for comparison in compared]
    paired = findings.paired
    kind = "pair" if paired else "run"
    sentences = basis(findings)
    if any(pairs):
        reachable = min(comparison.smallest_p for comparison in compared if comparison.n)
        effect = (
            "mean of the paired differences over their standard deviation"
            if paired
            else "difference over the pooled standard deviation"
        )
        by, data = "sign-flip" if paired else "permutation", formats.counted(max(pairs), kind)
        sentences.append(tested(by, len(pairs), "comparison", data, reachable))
        sentences.append(f"Effect size d: {effect}.")
        sentences += [family(findings), RULE]
    if pairs:
        sentences.append(findings.margin.sentence)
    sentences += uncounted(findings, not_converged)
    if pairs and min(pairs) < FEW_PAIRS:
        sentences.append(f"Small scale: fewer than {FEW_PAIRS} {kind}s show where to look, not what is so.")
    return " ".join(sentences)


def uncounted(findings: Findings, not_converged: int = 0) -> list[str]:
    """Sentences on planned runs that do not count and on finished ones that did not converge."""
    sentences = []
    unfinished = findings.unfinished()["state"].replace(FINISHED, "not finite").value_counts()
    if len(unfinished):
        parts = ", ".join(f"{count} {state}" for state, count in unfinished.items())
        planned = formats.counted(len(findings.runs), "planned run")
        verb = "does" if unfinished.sum() == 1 else "do"
        sentences.append(f"Of {planned}, {unfinished.sum()} {verb} not count: {parts}.")
    if not_converged:
        sentences.append(
            f"{formats.counted(not_converged, 'finished run')} did not converge, and count like the others."
        )
    return sentences


def _comparison_cells(comparison: Comparison | None, findings: Findings, digits: int) -> dict[str, Cell]:
    if comparison is None:
        found, verdict = Cell("baseline", 0.0), words("")
        simultaneous = single = effect = p = Cell("", None)
    else:
        found = difference(comparison.difference, comparison.interval, digits)
        effect = number(comparison.effect_size, formats.signed(comparison.effect_size, 2))
        p = probability(comparison.p_holm)
        simultaneous = _bounds(comparison.simultaneous, digits)
        single = _bounds(comparison.interval_90, digits)
        verdict = words(str(comparison.verdict))
    return {
        f"Verdict (margin {findings.margin.marked})": verdict,
        f"{formats.difference_name(findings.metric)} [95 % interval]": found,
        "Simultaneous 95 %": simultaneous,
        "90 % interval": single,
        "Effect size d": effect,
        "p (Holm)": p,
    }


def mean_cell(summary: Summary, digits: int) -> Cell:
    """Mean, standard deviation and number of runs."""
    spread = f" ± {formats.plain(summary.sd, digits)}" if math.isfinite(summary.sd) else ""
    text = f"{formats.plain(summary.mean, digits)}{spread} ({summary.n})"
    return number(summary.mean, text, sd=summary.sd, n=summary.n)


def _mean_interval(findings: Findings) -> str:
    bounds = [summary.interval for summary in findings.summaries]
    digits = formats.decimals(bounds)
    low, high = (formats.plain(end, digits) for end in bounds[0])
    return f"[{low}, {high}]"


def _bounds(interval: tuple[float, float], digits: int) -> Cell:
    low, high = interval
    return number(low, formats.interval(interval, digits) or formats.NOTHING, low=low, high=high)


def _seeds(count: int | None) -> Cell:
    return Cell(formats.NOTHING, None) if count is None else number(count, str(count))
