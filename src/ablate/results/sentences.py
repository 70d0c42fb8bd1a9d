"""Sentences for a paper, generated from verdicts and the intervals that carry them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ablate.results import formats, verdicts
from ablate.results.comparisons import Comparison, Findings
from ablate.results.factorial import Factorial
from ablate.results.families import DUNNETT, EQUAL_VARIANCE_LEVEL
from ablate.results.paths import Path as Walk
from ablate.results.statistics import CONFIDENCE, Interval
from ablate.store.files import write_text

FILE = "sentences.md"
WORDS = (
    "A condition is better or worse than the baseline if the simultaneous 95 % interval excludes zero, on "
    "par if the 90 % interval is inside the margin (two one-sided tests at 5 %), and otherwise undecided."
)
RULE = (
    "Verdict: better or worse if the simultaneous interval excludes zero, on par if the 90 % interval (not "
    "corrected) is inside the margin, else undecided."
)
EACH_BY_ITSELF = "The 90 % intervals are of each comparison by itself and not corrected for their number."


def save(findings: Findings, folder: Path) -> list[Path]:
    """Write sentences.md into a folder and return its path; nothing for a study of one condition."""
    if not findings.comparisons:
        return []
    lines = [
        f"# {findings.manifest.name}: sentences for a paper",
        f"{findings.margin.sentence} {family(findings)}",
        f"{WORDS} {EACH_BY_ITSELF}",
        "\n".join(f"- {sentence}" for sentence in comparisons(findings)),
    ]
    write_text(folder / FILE, "\n\n".join(lines) + "\n")
    return [folder / FILE]


def family(findings: Findings) -> str:
    """The study's family of comparisons, and how its simultaneous intervals were computed."""
    found = findings.family
    with_baseline = f"{formats.counted(found.size, 'comparison')} with {findings.baseline}"
    if found.method != DUNNETT:
        level = 100 * (1 - (1 - CONFIDENCE) / found.size)
        kind = "t" if findings.paired else "Welch"
        return (
            f"Family: {with_baseline}. Simultaneous 95 % intervals: a {kind} interval of each comparison at "
            f"{level:.4g} % (Bonferroni), because {found.reason}."
        )
    checked = ""
    if math.isfinite(found.equal_variance_p):
        p = f"p = {found.equal_variance_p:.2f}, not below {EQUAL_VARIANCE_LEVEL:g}"
        checked = f"; equal noise in all conditions is not rejected ({p})"
    layout = (
        "two-way layout of seed and condition" if findings.paired else "one-way layout of unpaired conditions"
    )
    return (
        f"Family: {with_baseline}. Simultaneous 95 % intervals: Dunnett’s, from the {layout} "
        f"({found.degrees:.0f} degrees of freedom of the pooled residual){checked}."
    )


def other_families(
    paths: Sequence[Walk], factors: Factorial | None, matched: Sequence[Comparison] | None
) -> list[str]:
    """The families of a study's walks, factors and conditions at one budget, each with its size."""
    found = []
    steps = {(s.step.condition, s.step.baseline) for path in paths for s in path.steps if s.step}
    if steps:
        found.append(f"{formats.counted(len(steps), 'step')} of walks")
    if factors is not None:
        effects = sum(math.isfinite(level.difference) for level in factors.marginal)
        found.append(formats.counted(effects, "main effect"))
        if factors.interactions:
            found.append(formats.counted(len(factors.interactions), "two-way interaction"))
    if matched:
        found.append(f"{formats.counted(len(matched), 'pair')} of conditions at the same budget")
    return found


def comparisons(findings: Findings) -> list[str]:
    """One sentence per comparison with the baseline."""
    digits = 1 + formats.decimals(each.interval for each in findings.comparisons)
    metric = formats.metric_name(findings.metric).removesuffix(" (%)")
    return [
        _sentence(findings, each, f"{metric[:1].lower()}{metric[1:]}", digits)
        for each in findings.comparisons
    ]


def _sentence(findings: Findings, each: Comparison, metric: str, digits: int) -> str:
    name, baseline = each.condition, each.baseline
    unit = " points" if findings.margin.unit == "pp" else ""
    difference = f"Δ = {formats.signed(each.difference, digits)}{unit}"
    simultaneous = _interval("simultaneous 95 % CI", each.simultaneous, digits)
    single = _interval("90 % CI", each.interval_90, digits)
    known = math.isfinite(each.margin)
    margin = [findings.margin.words if known else "no margin"]
    pairs = [
        f"n = {formats.counted(each.n, 'pair' if each.paired else 'run')}" + (" each" * (not each.paired))
    ]

    def shown(*parts: list[str]) -> str:
        return f"({', '.join([difference, *(text for part in parts for text in part)])})"

    verdict = each.verdict or verdicts.Verdict(verdicts.UNDECIDED)
    match verdict.word:
        case verdicts.ON_PAR if verdict.negligible:
            above = "above" if each.difference > 0 else "below"
            return (
                f"{name} was on par with {baseline} in {metric}: measurably {above} it, but negligibly "
                f"{shown(simultaneous, single, margin, pairs)}."
            )
        case verdicts.ON_PAR:
            return f"{name} was on par with {baseline} in {metric} {shown(single, margin, pairs)}."
        case verdicts.BETTER | verdicts.WORSE:
            return f"{name} was {verdict.word} than {baseline} in {metric} {shown(simultaneous, pairs)}."
    if not each.n:
        return f"{name} was not compared with {baseline}: no pair of runs has finished."
    if not simultaneous and not single:
        return (
            f"The comparison of {name} with {baseline} in {metric} is undecided {shown(pairs)}: there is no "
            "interval."
        )
    return (
        f"The comparison of {name} with {baseline} in {metric} is undecided "
        f"{shown(simultaneous, single, margin, pairs)}: neither a difference nor equivalence was shown."
        f"{_more(each)}"
    )


def _more(each: Comparison) -> str:
    """The seeds that either claim needs, as far as they are known."""
    parts = []
    if each.seeds_needed is not None:
        parts.append(f"about {each.seeds_needed} seeds show a difference of this size by a t-test at 5 %")
    if each.seeds_for_equivalence is not None:
        parts.append(f"about {each.seeds_for_equivalence} seeds show equivalence if there is no difference")
    return f" By these estimates, {', and '.join(parts)}, with 80 % power." if parts else ""


def _interval(name: str, bounds: Interval, digits: int) -> list[str]:
    text = formats.interval(bounds, digits)
    return [f"{name} {text}"] if text else []
