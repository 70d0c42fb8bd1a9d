"""Cells as a reader meets them."""

import math
from pathlib import Path

import pytest

from ablate.results import formats, tables
from ablate.results import record as records
from ablate.results.collect import collect
from ablate.results.comparisons import analyse

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (456_000, "0.46 M"),
        (12_310_000, "12.3 M"),
        (123.4e6, "123 M"),
        (4.51e9, "4.51 G"),
        (4096, "4.10 k"),
        (12, "12.0"),
    ],
)
def test_large_numbers_are_read_in_their_unit(value, text):
    assert formats.human(value) == text


@pytest.mark.parametrize(("half_width", "digits"), [(23, 0), (2.3, 1), (0.23, 2), (0.023, 3)])
def test_decimals_follow_the_width_of_the_interval(half_width, digits):
    assert formats.decimals([(1 - half_width, 1 + half_width), (math.nan, math.nan)]) == digits


@pytest.fixture
def findings(half_finished, tmp_path):
    return analyse(half_finished, collect(tmp_path, "quick"))


def test_the_table_has_a_row_a_condition(findings):
    table = tables.study_table(findings)
    assert table.column("Condition") == ["lsa", "elsa", "dwconv"]
    assert table.column("Test top-1 (%), mean ± sd (n)") == ["84.0 ± 0.5 (3)", "85.0 ± 0.1 (2)", "83.0 (1)"]
    assert table.column("Difference (pp) [95 % interval]") == ["baseline", "+0.8 [−1.7, +3.3]", "−1.0"]


def test_the_note_says_what_the_study_can_support(findings):
    note = tables.footnote(findings)
    assert "n = 1 to 2 pairs" in note
    assert "the smallest that 2 pairs can reach is 0.5, corrected 1." in note
    assert "Of 9 planned runs, 3 do not count: 1 failed, 1 missing, 1 pending." in note
    assert "Small scale" in note


def test_latex_prints_what_was_written():
    assert tables.escape_latex(r"100 % & filter_norm #1 $x$ {a}^~\ −1 ± λ") == (
        r"100 \% \& filter\_norm \#1 \$x\$ \{a\}\textasciicircum{}\textasciitilde{}\textbackslash{} "
        r"$-$1 $\pm$ $\lambda$"
    )


def test_markdown_and_latex_have_the_same_cells(findings):
    table = tables.study_table(findings)
    markdown, latex = table.markdown(), table.latex("100 % of it?")
    assert markdown.splitlines()[2].startswith("| lsa | 0.46 M | 12.3 M |")
    assert r"lsa & 0.46 M & 12.3 M &" in latex
    assert r"\caption{100 \% of it?}" in latex
    assert latex.count(r"\\") == 1 + len(table.rows)
    assert table.csv().splitlines()[1].startswith("lsa,0.46 M,12.3 M,")


def test_components_are_ticked_as_in_a_paper(findings):
    assert not tables.components(findings).rows  # one factor
    record = records.read(EXPERIMENTS / "channel_setting", EXPERIMENTS.parent / "conf")["channel_setting"]
    table = tables.components(record.findings)
    assert table.columns[1:4] == ["op=dynamic_filter", "heads", "channel=ghost_head"]
    for row in table.rows:
        for title in ("op=dynamic_filter", "channel=ghost_head"):
            assert (title in row["Condition"].text) == (row[title].text == "✓")
        assert f"heads={row['heads'].text}," in row["Condition"].text
    assert r"$\checkmark$" in table.latex() and "booktabs,amssymb" in table.latex()
