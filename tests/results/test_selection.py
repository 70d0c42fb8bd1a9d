"""A reader's selection: another baseline, another metric, a part of the runs, several studies on one page."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ablate.errors import UserError
from ablate.results.collect import collect
from ablate.results.report import Options, examined, report, write
from ablate.results.selection import Selection, combine
from ablate.store.manifest import Manifest, load

TOP1 = {
    "lsa": {0: 84.0, 1: 84.5, 2: 83.5, 3: 84.2},
    "elsa": {0: 85.0, 1: 85.4, 2: 84.6, 3: 85.1},
    "dwconv": {0: 83.0, 1: 83.2, 2: 82.9, 3: 83.3},
}


@pytest.fixture
def quick(fabricate: Callable) -> Manifest:
    return fabricate(TOP1, baseline={"op": "lsa"}, margin=0.5)


def kept(manifest: Manifest) -> set[tuple[str, int]]:
    return {(run.factors["op"], run.seed) for run in manifest.runs}


@pytest.mark.parametrize(
    ("selection", "operators", "seeds"),
    [
        (Selection(only=["op=lsa,elsa"]), {"lsa", "elsa"}, {0, 1, 2, 3}),
        (Selection(only=["lsa", "elsa"]), {"lsa", "elsa"}, {0, 1, 2, 3}),
        (Selection(drop=["dwconv"], seeds=[1, 2]), {"lsa", "elsa"}, {1, 2}),
        (Selection(drop=["op=dwconv"], only=["op=dwconv,lsa"]), {"lsa"}, {0, 1, 2, 3}),
    ],
)
def test_what_is_left_is_what_was_named(
    selection: Selection, operators: set[str], seeds: set[int], quick: Manifest
) -> None:
    found = selection.apply(quick)
    assert kept(found) == {(operator, seed) for operator in operators for seed in seeds}
    assert (found.margin, found.baseline, found.name) == (quick.margin, quick.baseline, "quick")


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(only=["op=els"]), "did you mean 'elsa'"),
        (Selection(drop=["operator=lsa"]), "op=…"),
        (Selection(seeds=[0, 9]), "no seed 9"),
        (Selection(only=["lsa"], drop=["lsa"]), "nothing of study quick"),
        (Selection(metric="test_top7"), "test_top1"),
    ],
)
def test_a_selection_of_what_is_not_there_is_refused_with_what_is(
    selection: Selection, words: str, quick: Manifest
) -> None:
    with pytest.raises(UserError, match=words):
        selection.apply(quick)


def test_a_page_of_a_selection_compares_with_its_baseline_and_says_so(
    quick: Manifest, tmp_path: Path
) -> None:
    selection = Selection(baseline=["elsa"], drop=["op=dwconv"], seeds=[0, 1, 2])
    page = write(examined(tmp_path, ["quick"], Options(selection=selection)), tmp_path, tmp_path / "page")[0]
    text = page.read_text(encoding="utf-8")
    assert "without op=dwconv, seeds 0, 1, 2, baseline elsa" in text
    assert "A selection of the study" in (page.parent / "table.md").read_text(encoding="utf-8")
    values = pd.read_csv(page.parent / "table_values.csv").set_index("Condition")
    expected = [a - b for a, b in zip([84.0, 84.5, 83.5], [85.0, 85.4, 84.6], strict=True)]
    assert math.isclose(values.loc["lsa", "Difference (pp)"], sum(expected) / 3)
    assert (
        values.loc["lsa", "Difference (pp) low"]
        < sum(expected) / 3
        < values.loc["lsa", "Difference (pp) high"]
    )
    assert list(values["Test top-1 (%) n"]) == [3, 3]
    assert "elsa" not in values.index or math.isclose(values.loc["elsa", "Difference (pp)"], 0)
    assert values.select_dtypes("number").shape[1] >= values.shape[1] - 1  # all but the verdict


def test_another_metric_has_no_margin_of_the_study(quick: Manifest, tmp_path: Path) -> None:
    found = examined(tmp_path, ["quick"], Options(selection=Selection(metric="test_top5"))).findings
    assert found.metric == "test_top5"
    assert found.margin.origin == "default"


def test_two_studies_are_one_page_and_a_shared_run_counts_once(quick: Manifest, tmp_path: Path) -> None:
    shared = [run for run in quick.runs if run.factors["op"] == "lsa"]
    Manifest("shared", factors=["op"], runs=shared).save(tmp_path)
    pages = report(tmp_path, ["quick", "shared"])
    runs = pd.read_csv(pages[0].parent / "results.csv")
    assert pages[0].parent.name == "with_shared"
    assert len(runs) == len(quick.runs)
    assert set(runs["condition"]) == set(TOP1)


def test_conditions_of_one_name_and_other_settings_are_told_apart(
    fabricate: Callable, tmp_path: Path
) -> None:
    first = fabricate(TOP1, baseline={"op": "lsa"})
    runs = [
        type(run)(run.signature[::-1], f"other {run.pair_key}", run.seed, run.factors) for run in first.runs
    ]
    other = Manifest("other", factors=["op"], runs=runs)
    together = combine([load(tmp_path, "quick"), other])
    assert together.factors == ["study", "op"]
    assert together.baseline == {"study": "quick", "op": "lsa"}
    assert len(together.runs) == 2 * len(runs)
    with pytest.raises(UserError, match="--metric"):
        combine([first, Manifest("third", metric="test_miou", runs=runs)])
    assert len(collect(tmp_path, "quick")) == len(first.runs)
