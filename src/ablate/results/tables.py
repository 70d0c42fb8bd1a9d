"""The table of a study: one row a condition, for the page, Markdown and LaTeX."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from ablate.results import formats
from ablate.results.comparisons import Comparison, Findings, Summary
from ablate.results.statistics import smallest_p
from ablate.store.folder import FINISHED

FEW_PAIRS = 5

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "[": "{[}",  # after \\\\ a bracket would open an optional argument
        "]": "{]}",
        "|": r"\textbar{}",
        "\n": " ",
        "−": "$-$",
        "±": r"$\pm$",
        "×": r"$\times$",
        "–": "--",
        "λ": r"$\lambda$",
        "γ": r"$\gamma$",
    }
)


@dataclass(frozen=True)
class Cell:
    """What a reader sees, and what a column is sorted by (None sorts last)."""

    text: str
    value: float | str | None


def cells(findings: Findings) -> list[dict[str, Cell]]:
    """The rows of the study's table, by column title."""
    by_condition = {comparison.condition: comparison for comparison in findings.comparisons}
    digits = formats.decimals(
        [comparison.interval for comparison in findings.comparisons]
        or [summary.interval for summary in findings.summaries]
    )
    mean_title = f"{formats.metric_name(findings.metric)}, mean ± sd (n)"
    return [
        {
            "Condition": Cell(summary.condition, summary.condition),
            "Parameters": _number(summary.parameters, formats.human(summary.parameters)),
            "MACs": _number(summary.macs, formats.human(summary.macs)),
            "Images/s": _number(summary.throughput, formats.plain(summary.throughput, 0)),
            mean_title: _number(summary.mean, _mean(summary, digits)),
            **_comparison_cells(by_condition.get(summary.condition), findings.metric, digits),
        }
        for summary in findings.summaries
    ]


def study_table(findings: Findings) -> pd.DataFrame:
    """The study's table as formatted text: cost, accuracy and paired difference of each condition.

    Decimals follow the width of the intervals; intervals are 95 % Student's t over pairs.
    """
    return pd.DataFrame([{title: cell.text for title, cell in row.items()} for row in cells(findings)])


def footnote(findings: Findings) -> str:
    """What the table can support: n, the smallest p it can reach, and what is missing."""
    pairs = [comparison.n for comparison in findings.comparisons]
    sentences = [f"Differences from {findings.baseline}, paired by seed; 95 % Student's t intervals."]
    if pairs:
        fewest, most = min(pairs), max(pairs)
        sentences.append(f"n = {fewest if fewest == most else f'{fewest} to {most}'} pairs a comparison.")
    if any(pairs):
        reachable = smallest_p(max(pairs))
        sentences.append(
            f"p: sign-flip test, Holm-corrected over {formats.counted(len(pairs), 'comparison')}; "
            f"the smallest that {formats.counted(max(pairs), 'pair')} can reach is {reachable:.3g}, "
            f"corrected {min(1.0, reachable * len(pairs)):.3g}. "
            "Effect size d: mean of the paired differences over their standard deviation."
        )
    unfinished = findings.unfinished()["state"].replace(FINISHED, "not finite").value_counts()
    if len(unfinished):
        parts = ", ".join(f"{count} {state}" for state, count in unfinished.items())
        planned = formats.counted(len(findings.runs), "planned run")
        sentences.append(f"Of {planned}, {unfinished.sum()} do not count: {parts}.")
    if pairs and min(pairs) < FEW_PAIRS:
        sentences.append(f"Small scale: fewer than {FEW_PAIRS} pairs show where to look, not what is so.")
    return " ".join(sentences)


def to_markdown(table: pd.DataFrame, note: str) -> str:
    """The table in Markdown, numbers to the right, with the note under it."""
    lines = [list(table.columns), [":--", *["--:"] * (table.shape[1] - 1)], *table.to_numpy().tolist()]
    rows = ["| " + " | ".join(_one_line(text) for text in line) + " |" for line in lines]
    return "\n".join([*rows, "", note]) + "\n"


def to_latex(table: pd.DataFrame, note: str, caption: str, label: str) -> str:
    """The table in LaTeX for the booktabs package, with the note under it."""
    header, *rows = [
        " & ".join(escape_latex(text) for text in line) + r" \\"
        for line in [list(table.columns), *table.to_numpy().tolist()]
    ]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape_latex(caption)}}}",
            rf"  \label{{tab:{label}}}",
            rf"  \begin{{tabular}}{{l{'r' * (table.shape[1] - 1)}}}",
            r"    \toprule",
            f"    {header}",
            r"    \midrule",
            *(f"    {row}" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"  \par\smallskip",
            rf"  \begin{{minipage}}{{\linewidth}}\footnotesize {escape_latex(note)}\end{{minipage}}",
            r"\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Plain text as LaTeX that prints the same."""
    return text.translate(_LATEX)


def _comparison_cells(comparison: Comparison | None, metric: str, digits: int) -> dict[str, Cell]:
    if comparison is None:
        difference, effect, p = Cell("baseline", 0.0), Cell("", None), Cell("", None)
    else:
        bounds = formats.interval(comparison.interval, digits)
        text = f"{formats.signed(comparison.difference, digits)} {bounds}".strip()
        difference = _number(comparison.difference, text)
        effect = _number(comparison.effect_size, formats.signed(comparison.effect_size, 2))
        p = _number(comparison.p_holm, formats.probability(comparison.p_holm))
    title = f"{formats.difference_name(metric)} [95 % interval]"
    return {title: difference, "Effect size d": effect, "p (Holm)": p}


def _mean(summary: Summary, digits: int) -> str:
    spread = f" ± {formats.plain(summary.sd, digits)}" if math.isfinite(summary.sd) else ""
    return f"{formats.plain(summary.mean, digits)}{spread} ({summary.n})"


def _number(value: float, text: str) -> Cell:
    return Cell(text, value if math.isfinite(value) else None)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
