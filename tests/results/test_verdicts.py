"""Each verdict is a word that the intervals beside it carry, and a planted truth gets its word."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ablate.cli import main
from ablate.errors import UserError
from ablate.results import sentences, tables
from ablate.results.collect import collect
from ablate.results.comparisons import analyse
from ablate.results.evidence import examine
from ablate.results.report import report
from ablate.results.statistics import NO_INTERVAL
from ablate.results.verdicts import BETTER, ON_PAR, UNDECIDED, WORSE, Verdict, decide


@pytest.mark.parametrize(
    ("simultaneous", "single", "margin", "higher", "lower"),
    [
        ((0.2, 3.0), (0.5, 2.0), 0.4, BETTER, WORSE),
        ((-3.0, -0.2), (-2.0, -0.5), 0.4, WORSE, BETTER),
        ((-0.5, 0.6), (-0.2, 0.3), 0.4, ON_PAR, ON_PAR),
        ((-0.5, 0.6), (-0.2, 0.4), 0.4, UNDECIDED, UNDECIDED),  # its end is the margin
        ((-0.5, 0.6), (-0.2, 0.3), math.nan, UNDECIDED, UNDECIDED),
        ((0.2, 3.0), (0.5, 2.0), math.nan, BETTER, WORSE),
        (NO_INTERVAL, NO_INTERVAL, 0.4, UNDECIDED, UNDECIDED),
        ((0.0, 3.0), (0.5, 2.0), 0.4, UNDECIDED, UNDECIDED),  # its end is zero
    ],
)
def test_the_word_is_carried_by_the_intervals(simultaneous, single, margin, higher, lower):
    assert decide(simultaneous, single, margin, "test_top1") == Verdict(higher)
    assert decide(simultaneous, single, margin, "test_loss") == Verdict(lower)


def test_a_measurable_difference_inside_the_margin_is_on_par_and_says_so():
    verdict = decide((0.1, 0.35), (0.12, 0.3), 0.4, "test_top1")
    assert verdict == Verdict(ON_PAR, negligible=True)
    assert str(verdict) == "on par (measurable, negligible)"


ON_PAR_TRUTH, DIFFERENT = 0.0, 2.0


def test_planted_truths_get_their_words(fabricate, tmp_path):
    """Ten seeds, margin 0.5, noise of 0.25 points per run: right in 95 of 100 draws and more."""
    manifest = fabricate(
        {name: dict.fromkeys(range(10), 80.0) for name in ("lsa", "equal", "better", "worse")}
    )
    manifest.margin = 0.5
    runs = collect(tmp_path, "quick")
    names, generator, right = runs["condition"].to_numpy(), np.random.default_rng(0), np.zeros(3)
    effects = {"lsa": 0.0, "equal": ON_PAR_TRUTH, "better": DIFFERENT, "worse": -DIFFERENT}
    seeds = runs["seed"].to_numpy()
    for _ in range(100):
        shared = generator.normal(0, 1, 10)
        figures = 80 + np.array([effects[name] for name in names]) + shared[seeds]
        drawn = runs.assign(test_top1=figures + generator.normal(0, 0.25, len(runs)))
        words = [each.verdict.word for each in analyse(manifest, drawn).comparisons]
        right += [word == expected for word, expected in zip(words, (ON_PAR, BETTER, WORSE), strict=True)]
    assert (right >= 95).all(), right


def test_no_difference_is_called_one_more_often_than_one_study_in_twenty(fabricate, tmp_path):
    """Four conditions without any difference, five seeds: the family's level."""
    manifest = fabricate({name: dict.fromkeys(range(5), 80.0) for name in "abcde"})
    runs, generator, wrong = collect(tmp_path, "quick"), np.random.default_rng(3), 0
    for _ in range(300):
        drawn = runs.assign(test_top1=80 + generator.normal(0, 1, len(runs)))
        family = analyse(manifest, drawn).family
        wrong += any(low > 0 or high < 0 for low, high in family.intervals)
    assert wrong / 300 <= 0.06 + 2 * math.sqrt(0.05 * 0.95 / 300)


@pytest.fixture
def study(fabricate):
    """Ten seeds: one condition on par, one better, one worse, one with a single run, one without any."""
    noise = np.random.default_rng(0).normal(0, 0.2, (5, 10))
    base = np.random.default_rng(1).normal(80, 1, 10)

    def figures(row, shift, seeds=10):
        return {seed: float(base[seed] + shift + noise[row, seed]) for seed in range(seeds)}

    def build(**settings):
        outcomes = {
            "lsa": figures(0, 0),
            "par": figures(1, 0.02),
            "up": figures(2, 2),
            "down": figures(3, -2),
        }
        if settings.pop("unfinished", False):
            outcomes |= {
                "one": figures(4, 0, 1) | dict.fromkeys(range(1, 10)),
                "none": dict.fromkeys(range(10)),
            }
        return fabricate(outcomes, **settings)

    return build


def test_sentences_are_honest_for_each_word(study, tmp_path):
    manifest = study(margin=0.5, unfinished=True)
    findings = analyse(manifest, collect(tmp_path, "quick"))
    par, up, down, one, none = sentences.comparisons(findings)
    assert par.startswith("par was on par with lsa in test top-1 (Δ = ")
    assert "90 % CI [" in par
    assert par.endswith("margin 0.5, n = 10 pairs).")
    assert up.startswith("up was better than lsa in test top-1 (Δ = +")
    assert down.startswith("down was worse than lsa in test top-1 (Δ = −")
    assert "simultaneous 95 % CI [" in up
    assert "90 %" not in up, "it does not carry the word"
    assert one.startswith("The comparison of one with lsa in test top-1 is undecided (Δ = ")
    assert one.endswith("n = 1 pair): there is no interval.")
    assert none == "none was not compared with lsa: no pair of runs has finished."
    assert "not every condition has a figure of every seed" in sentences.family(findings)
    assert [str(each.verdict) for each in findings.comparisons] == [
        "on par",
        "better",
        "worse",
        *["undecided"] * 2,
    ]


def test_an_undecided_sentence_says_what_would_decide(study, tmp_path):
    manifest = study(margin=0.001)
    undecided = sentences.comparisons(analyse(manifest, collect(tmp_path, "quick")))[0]
    assert "neither a difference nor equivalence was shown" in undecided
    assert "seeds show a difference of this size by a t-test at 5 %" in undecided


def test_a_negligible_difference_has_its_direction(study, tmp_path):
    manifest = study(margin=4.0)
    up, down = sentences.comparisons(analyse(manifest, collect(tmp_path, "quick")))[1:]
    assert "up was on par with lsa in test top-1: measurably above it, but negligibly (Δ = +" in up
    assert "measurably below it" in down


def test_the_margin_says_where_it_is_from_wherever_it_shows(study, tmp_path):
    manifest = study()
    runs = collect(tmp_path, "quick")
    default = analyse(manifest, runs)
    spread = runs.loc[runs["condition"] == "lsa", "test_top1"].std()
    assert default.margin.value == pytest.approx(spread)
    fixed = analyse(replace(manifest, margin=0.5), runs)
    late = analyse(replace(manifest, margin=0.5, margin_after=7), runs)
    chosen = analyse(replace(manifest, margin=0.5), runs, margin=0.3)
    marks = {
        "default": default,
        "": fixed,
        "set after 7 finished runs": late,
        "chosen after the runs": chosen,
    }
    for mark, findings in marks.items():
        table = tables.study_table(findings)
        title = next(title for title in table.columns if title.startswith("Verdict"))
        assert title == f"Verdict (margin {findings.margin.number}{', ' * bool(mark)}{mark})"
        for text in (table.markdown(), table.latex(), table.csv()):
            assert findings.margin.number in text
            assert mark in text
        assert findings.margin.sentence in table.note
        par = sentences.comparisons(findings)[0]
        assert f", {findings.margin.words}, n = " in par
        drawn = examine(manifest, runs, pd.DataFrame()).drawings()["differences"]
        assert "(default)" in drawn().axes[0].get_xlabel()
    assert "one standard deviation of lsa over its 10 seeds" in default.margin.sentence
    assert "fixed before the runs" in fixed.margin.sentence
    assert "instead of 0.5, which the study had set" in chosen.margin.sentence


def test_without_noise_there_is_no_default_and_no_word_of_equivalence(fabricate, tmp_path):
    manifest = fabricate({"lsa": {0: 80.0}, "elsa": {0: 80.0, 1: 81.0}})
    findings = analyse(manifest, collect(tmp_path, "quick"))
    assert math.isnan(findings.margin.value)
    assert "without a margin no condition can be on par" in findings.margin.sentence
    assert "Verdict (margin none)" in tables.study_table(findings).columns
    assert "Margin: none" in report(tmp_path, "quick")[0].read_text(encoding="utf-8")


def test_a_lower_loss_is_better(study, tmp_path):
    manifest = study(metric="test_loss", margin=0.5)
    runs = collect(tmp_path, "quick")
    findings = analyse(manifest, runs.assign(test_loss=runs["test_top1"]))
    assert [each.verdict.word for each in findings.comparisons] == [ON_PAR, WORSE, BETTER]
    assert findings.margin.unit == ""
    assert "points" not in sentences.comparisons(findings)[0]


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_a_margin_is_a_positive_number(study, tmp_path, margin):
    study()
    with pytest.raises(UserError, match="is not a positive number"):
        report(tmp_path, "quick", margin=margin)


def test_unpaired_comparisons_have_verdicts_of_their_own_intervals(study, tmp_path):
    findings = analyse(study(margin=2.5), collect(tmp_path, "quick"), paired=False)
    assert "one-way layout of unpaired conditions" in sentences.family(findings)
    assert "p (max-t)" not in tables.details(findings).columns
    assert all(math.isnan(each.p_max) for each in findings.comparisons)
    assert "n = 10 runs each" in sentences.comparisons(findings)[0]
    assert [each.verdict.word for each in findings.comparisons] == [ON_PAR, BETTER, WORSE]


def test_page_files_and_command_line_show_verdicts(study, tmp_path, capsys):
    study(margin=0.5, paths={"walk": ["lsa", "par", "up"]})
    main(["report", "quick", "--runs-dir", str(tmp_path), "--margin", "0.4"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Margin: ±0.4 pp, chosen after the runs" in printed
    assert " on par" in printed
    folder = tmp_path / "studies" / "quick" / "report"
    page = (folder / "index.html").read_text(encoding="utf-8")
    for words in (
        "1 better, 1 worse, 1 on par",
        "0.4 pp <strong>(chosen after the runs)</strong>",
        "Family: 3 comparisons with lsa. Simultaneous 95 % intervals: Dunnett’s",
        "Other families of this study",
        "2 steps of walks",
    ):
        assert words in page
    written = (folder / "sentences.md").read_text(encoding="utf-8")
    assert "- par was on par with lsa" in written
    assert sentences.WORDS in written
    drawing = (folder / "differences.svg").read_text(encoding="utf-8")
    assert "band: margin ±0.4 pp (chosen after the runs)" in drawing
