"""A table, and how it is written: Markdown, LaTeX for booktabs, CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ablate.results import formats
from ablate.results.statistics import Interval
from ablate.store.files import write_text

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
        "✓": r"$\checkmark$",  # of amssymb
        "×": r"$\times$",
        "–": "--",
        "λ": r"$\lambda$",
        "γ": r"$\gamma$",
    }
)


@dataclass(frozen=True)
class Cell:
    """One cell: the text that a reader sees, and the value that its column is sorted by (None sorts last).

    Attributes:
        text: what a reader sees.
        value: a number or text.
        more: other numbers in the text, by name: low, high, sd, n.
    """

    text: str
    value: float | str | None
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows of cells by column title; `name` is that of its files, `note` is below it."""

    name: str
    title: str
    rows: Sequence[Mapping[str, Cell]]
    note: str = ""

    @property
    def columns(self) -> list[str]:
        """The titles of its columns."""
        return list(self.rows[0]) if self.rows else []

    def column(self, title: str) -> list[str]:
        """A column as text."""
        return [row[title].text for row in self.rows]

    def frame(self) -> pd.DataFrame:
        """The cells as a reader sees them."""
        return pd.DataFrame(self._lines(), columns=self.columns)

    def values(self) -> pd.DataFrame:
        """The numbers without formats: every number of a cell in a column of its own.

        A column `Difference (pp) [95 % interval]` becomes `Difference (pp)`, `Difference (pp) low` and
        `Difference (pp) high`. Numbers that there are none of are NaN.
        """
        found: dict[str, list[float | str | None]] = {}
        for title in self.columns:
            name = re.sub(r"( \[|, mean ).*", "", title)
            cells = [row[title] for row in self.rows]
            more = dict.fromkeys(key for cell in cells for key in cell.more)
            intervals = all(cell.value is None or cell.value == cell.more.get("low") for cell in cells)
            if not (more and intervals):
                found[name] = [cell.value for cell in cells]
            for key in more:
                found[f"{name} {key}"] = [cell.more.get(key) for cell in cells]
        return pd.DataFrame(found)

    def _repr_markdown_(self) -> str:
        """Markdown for notebooks; pandas would cut off long names and has no note."""
        return self.markdown()

    def text_columns(self) -> list[bool]:
        """Names of the columns that hold text, which are aligned to the left."""
        return [all(isinstance(row[title].value, str) for row in self.rows) for title in self.columns]

    def markdown(self) -> str:
        """The table in Markdown, numbers to the right, with the note under it."""
        if not self.rows:
            return f"{self.note}\n"
        rule = [":--" if text else "--:" for text in self.text_columns()]
        rows = [
            "| " + " | ".join(_one_line(text) for text in line) + " |"
            for line in [self.columns, rule, *self._lines()]
        ]
        return "\n".join([*rows, *(["", self.note] if self.note else [])]) + "\n"

    def latex(self, caption: str = "", label: str = "") -> str:
        """The table in LaTeX for the booktabs package, with the note under it.

        Its label is `tab:` with the name of the table, after `label` where tables of several studies meet.
        """
        label = re.sub(r"[^A-Za-z0-9-]+", "-", f"{label}-{self.name}").strip("-")
        header, *rows = [
            " & ".join(escape_latex(text) for text in line) + r" \\"
            for line in [self.columns, *self._lines()]
        ]
        columns = "".join("l" if text else "r" for text in self.text_columns())
        note = rf"  \begin{{minipage}}{{\linewidth}}\footnotesize {escape_latex(self.note)}\end{{minipage}}"
        return "\n".join(
            [
                r"% \usepackage{booktabs,amssymb}"
                if r"\checkmark" in "".join(rows)
                else r"% \usepackage{booktabs}",
                r"\begin{table}",
                r"  \centering",
                rf"  \caption{{{escape_latex(caption or self.title)}}}",
                rf"  \label{{tab:{label}}}",
                rf"  \begin{{tabular}}{{{columns}}}",
                r"    \toprule",
                f"    {header}",
                r"    \midrule",
                *(f"    {row}" for row in rows),
                r"    \bottomrule",
                r"  \end{tabular}",
                *([r"  \par\smallskip", note] if self.note else []),
                r"\end{table}",
                "",
            ]
        )

    def csv(self) -> str:
        """The cells as a reader sees them, separated by commas."""
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([self.columns, *self._lines()])
        return file.getvalue()

    def save(self, folder: Path, caption: str = "", label: str = "") -> list[Path]:
        """Write `name`.md, .tex and .csv into a folder, each whole or not at all; see `latex` for `label`."""
        if not self.rows:
            return []
        texts = {"md": self.markdown(), "tex": self.latex(caption, label), "csv": self.csv()}
        for suffix, text in texts.items():
            write_text(folder / f"{self.name}.{suffix}", text)
        return [folder / f"{self.name}.{suffix}" for suffix in texts]

    def _lines(self) -> list[list[str]]:
        return [[cell.text for cell in row.values()] for row in self.rows]


def words(text: str) -> Cell:
    """A cell of text."""
    return Cell(text, text)


def number(value: float, text: str, **more: float) -> Cell:
    """A cell that is sorted by a number, at the end if it is not finite; `more`: other numbers in it."""
    return Cell(text, value if math.isfinite(value) else None, more)


def difference(value: float, interval: Interval, digits: int) -> Cell:
    """A signed difference with its interval."""
    text = f"{formats.signed(value, digits)} {formats.interval(interval, digits)}".strip()
    return number(value, text, low=interval[0], high=interval[1])


def probability(p: float) -> Cell:
    """A p-value."""
    return number(p, formats.probability(p))


def tested(by: str, tests: int, what: str, data: str, reachable: float) -> str:
    """The sentence on p-values: whose they are, what they are corrected for, and how small they can be.

    Args:
        by: the test's name.
        tests: how many there are, which the correction is over.
        what: what each of them is of, in the singular.
        data: of how much, "5 pairs".
        reachable: the smallest p-value that so much data can give.
    """
    return (
        f"p: {by} test, Holm-corrected over {formats.counted(tests, what)}; the smallest that {data} can "
        f"reach is {reachable:.3g}, corrected {min(1.0, reachable * tests):.3g}."
    )


def escape_latex(text: str) -> str:
    """Plain text as LaTeX that prints the same."""
    return text.translate(_LATEX)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
