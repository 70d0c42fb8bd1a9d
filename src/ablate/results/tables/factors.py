"""Tables of factorial studies: main effects, interactions, shares of variance."""

from __future__ import annotations

import math

from ablate.results import formats
from ablate.results.comparisons import Findings
from ablate.results.factorial import REST, Factorial
from ablate.results.statistics import smallest_p
from ablate.results.tables.conditions import uncounted
from ablate.results.tables.table import Cell, Table, difference, number, probability, tested, words


def effects(findings: Findings, factorial: Factorial, not_converged: int = 0) -> Table:
    """Every level averaged over the other factors, and against the factor's reference."""
    digits = formats.decimals(level.difference_interval for level in factorial.marginal)
    rows = [
        {
            "Factor": words(level.factor),
            "Level": words(level.level),
            f"{formats.metric_name(findings.metric)}, marginal mean [95 % interval]": number(
                level.mean, f"{formats.plain(level.mean, digits)} {_plain(level.interval, digits)}".strip()
            ),
            f"{formats.difference_name(findings.metric)} [95 % interval]": Cell("reference", 0.0)
            if math.isnan(level.difference)
            else difference(level.difference, level.difference_interval, digits),
            "p (Holm)": Cell("", None) if math.isnan(level.difference) else probability(level.p_holm),
        }
        for level in factorial.marginal
    ]
    return Table("effects", "Main effects", rows, _note(findings, factorial, not_converged))


def interactions(findings: Findings, factorial: Factorial) -> Table:
    """Table of interactions: the change of one level's effect with another factor's level."""
    digits = formats.decimals(each.interval for each in factorial.interactions)
    rows = [
        {
            "Factors": words(" × ".join(each.factors)),
            "Levels": words(" × ".join(each.levels)),
            f"{formats.difference_name(findings.metric)} of differences [95 % interval]": difference(
                each.difference, each.interval, digits
            ),
            "p (Holm)": probability(each.p_holm),
        }
        for each in factorial.interactions
    ]
    note = (
        "What both levels do together beyond the sum of what each does alone, against the reference levels; "
        "within each seed, averaged over the other factors. Holm-corrected over the rows."
    )
    return Table("interactions", "Two-way interactions", rows, note)


def variance(factorial: Factorial) -> Table:
    """The share of the variance that every term accounts for."""
    rows = [
        {
            "Term": words("rest" if share.term == REST else share.term),
            "Degrees of freedom": number(share.degrees, str(share.degrees)),
            "Sum of squares": number(share.sum_of_squares, formats.plain(share.sum_of_squares, 1)),
            "Share (%)": number(share.share, formats.plain(100 * share.share, 1)),
        }
        for share in factorial.shares
    ]
    note = (
        "Type II sums of squares over the total about the mean. Seed: what all runs of a seed share. Rest: "
        "interactions of more than two factors, and noise."
    )
    if factorial.absent:
        note += " With cells missing, shares do not add up to 100 %."
    return Table("variance", "Shares of variance", rows, note)


def _note(findings: Findings, factorial: Factorial, not_converged: int) -> str:
    seeds = formats.counted(len(factorial.seeds), "seed")
    tests = sum(math.isfinite(level.difference) for level in factorial.marginal)
    sentences = [
        "Means over all combinations of the other factors, within each seed; 95 % Student's t intervals over "
        "seeds.",
        f"n = {seeds}.",
        tested("sign-flip", tests, "level", seeds, smallest_p(len(factorial.seeds))),
    ]
    if factorial.left_out:
        left = ", ".join(map(str, factorial.left_out))
        sentences.append(f"Left out, because a cell is missing: seed {left}.")
    if factorial.absent:
        cells = "; ".join(", ".join(cell) for cell in factorial.absent)
        sentences.append(
            "The design is incomplete, and marginal means are those that an additive model expects of the "
            f"complete one. Missing: {cells}."
        )
    return " ".join([*sentences, *uncounted(findings, not_converged)])


def _plain(interval: tuple[float, float], digits: int) -> str:
    low, high = interval
    return (
        f"[{formats.plain(low, digits)}, {formats.plain(high, digits)}]" if math.isfinite(high - low) else ""
    )
