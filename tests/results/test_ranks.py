"""Average ranks over places: judged by scipy's tests and by the worked example of Demšar (2006)."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from tests.results.conftest import configuration, fabricate_run

from ablate.results import evidence, figures, ranks
from ablate.results.report import report, write_evidence
from ablate.store.identity import signature
from ablate.store.manifest import Manifest, PlannedRun

# Table 6 of Demšar (2006): areas under the curve of C4.5 on 14 data sets; m, cf, or both were tuned. The last
# but one is printed as a tie of 0.975 and ranked 2 and 3, by digits that are not printed.
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
AREAS = np.array(
    [
        *((0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967)),
        *((0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931)),
        *((0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875)),
        *((1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669)),
        *((0.972, 0.981, 0.975, 0.9749), (0.957, 0.978, 0.946, 0.970)),
    ]
)


def test_the_worked_example_of_demsar() -> None:
    found = ranks.rank(AREAS, NAMES)
    assert found.conditions == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert found.averages == pytest.approx((1.964, 2.000, 2.893, 3.143), abs=5e-4)
    assert found.critical == pytest.approx(1.25, abs=5e-3)
    assert found.p < 0.05  # F is 3.69, beyond 2.85
    assert found.nemenyi == ((0, 3),)  # at 5 % no pair is further apart than 1.25
    looser = ranks.rank(AREAS, NAMES, confidence=0.9)
    assert looser.critical == pytest.approx(1.12, abs=5e-3)
    assert looser.nemenyi == ((0, 2), (2, 3))  # C4.5 is worse than C4.5+m+cf and C4.5+m


@pytest.mark.parametrize("ties", [False, True])
def test_friedman_and_wilcoxon_are_scipys(ties: bool) -> None:
    drawn = np.random.default_rng(0).normal(0, 1, (9, 5)) + np.arange(5) / 2
    table = np.round(drawn, 0 if ties else 6)
    found = ranks.rank(table, "abcde")
    judge = stats.friedmanchisquare(*table.T)
    assert found.friedman == pytest.approx(judge.statistic)
    freedom = (4, 4 * 8)
    statistic = 8 * judge.statistic / (9 * 4 - judge.statistic)
    assert found.p == pytest.approx(stats.f.sf(statistic, *freedom))
    tested = {}
    for a, b in itertools.combinations(range(5), 2):
        differences = (table[:, a] - table[:, b])[table[:, a] != table[:, b]]
        exact = stats.PermutationMethod(n_resamples=10**6) if ties else "exact"  # all signs of so few
        p = stats.wilcoxon(differences, method=exact).pvalue
        assert ranks.signed_rank_p(table[:, a] - table[:, b]).p == pytest.approx(p)
        tested["abcde"[a], "abcde"[b]] = p
    corrected = dict(zip(tested, stats_holm(list(tested.values())), strict=True))
    for pair in found.pairs:
        both = (pair.better, pair.worse)
        assert pair.p == pytest.approx(corrected[both] if both in corrected else corrected[both[::-1]])


def stats_holm(p_values: list[float]) -> np.ndarray:
    """Holm's correction as statsmodels has it."""
    from statsmodels.stats.multitest import multipletests

    return multipletests(p_values, method="holm")[1]


def test_the_critical_difference_is_that_of_the_studentized_range() -> None:
    for places, count in ((5, 3), (12, 7), (30, 24)):
        found = ranks.rank(
            np.random.default_rng(0).normal(size=(places, count)), [str(c) for c in range(count)]
        )
        quantile = stats.studentized_range.ppf(0.95, count, np.inf) / np.sqrt(2)
        assert found.critical == pytest.approx(quantile * np.sqrt(count * (count + 1) / (6 * places)))


def test_conditions_without_a_difference_are_one_group_and_planted_ones_are_told() -> None:
    draw = np.random.default_rng(1)
    alarms = sum(len(ranks.rank(draw.normal(size=(8, 4)), "abcd").nemenyi) != 1 for _ in range(400))
    assert alarms / 400 < 0.07
    table = draw.normal(size=(20, 3)) + np.array([0.0, 0.0, 9.0])
    found = ranks.rank(table, "abc")
    assert found.conditions[0] == "c" and found.nemenyi == found.wilcoxon == ((1, 2),)
    assert ranks.rank(table, "abc", higher=False).conditions[-1] == "c"
    assert found.firsts == (20, 0, 0)
    assert {(pair.better, pair.worse) for pair in found.pairs if pair.p < 0.05} == {("c", "a"), ("c", "b")}


def test_groups_are_runs_without_a_pair_that_is_apart() -> None:
    assert ranks.groups(4, set()) == ((0, 3),)
    assert ranks.groups(4, {(0, 3)}) == ((0, 2), (1, 3))
    assert ranks.groups(3, {(0, 1), (0, 2), (1, 2)}) == ()
    assert ranks.groups(5, {(1, 2)}) == ((0, 1), (2, 4))  # others of the first two are joined to none beyond


def test_places_whose_figures_all_agree_have_no_ranks_to_compare() -> None:
    found = ranks.rank(np.ones((6, 3)), "abc")
    assert (found.friedman, found.p, found.nemenyi) == (0.0, 1.0, ((0, 2),))
    same = ranks.rank(np.tile([3.0, 2.0, 1.0], (6, 1)), "abc")
    assert same.p == 0.0 and same.averages == (1.0, 2.0, 3.0)


def study(hosts: int, gaps: tuple[str, ...] = ()) -> tuple[Manifest, pd.DataFrame]:
    """Three operators in several hosts, two seeds each; `gaps`: hosts that lack the run of `c`."""
    draw, runs, rows = np.random.default_rng(0), [], []
    for host in range(hosts):
        for place, op in enumerate("abc"):
            for seed in (0, 1):
                signature, factors = f"{len(rows):012x}", {"op": op, "host": f"host{host}"}
                state = "failed" if op == "c" and f"host{host}" in gaps else "finished"
                runs.append(PlannedRun(signature, "", seed, factors))
                top1 = 50 + 5 * host + place + draw.normal(0, 0.1)
                rows.append(
                    {**factors, "signature": signature, "seed": seed, "state": state, "test_top1": top1}
                )
    manifest = Manifest("s", baseline={"op": "a", "host": "host0"}, factors=["op", "host"], runs=runs)
    return manifest, pd.DataFrame(rows)


def test_a_place_needs_all_conditions_and_a_study_five_places() -> None:
    found = ranks.analyse(*study(7, gaps=("host3", "host5")))
    assert found is not None
    assert (found.places, found.left_out, found.kinds) == (5, 2, ("host",))
    assert (found.conditions, found.averages) == (("c", "b", "a"), (1.0, 2.0, 3.0))
    assert found.smallest_p == pytest.approx(stats.wilcoxon(np.arange(1, 6)).pvalue)
    assert ranks.analyse(*study(4)) is None
    assert ranks.analyse(*study(6, gaps=("host3", "host5"))) is None
    manifest, frame = study(6)
    two = frame[frame["op"] != "c"].reset_index(drop=True)
    assert ranks.analyse(manifest, two) is None


def test_a_study_of_many_hosts_has_its_diagram_and_table(tmp_path: Path) -> None:
    manifest, frame = study(6)
    names = "op=" + frame["op"] + ", host=" + frame["host"]
    frame = frame.assign(
        condition=names, epoch=1, epochs=1, error="", macs=1e6, parameters=1e5, throughput=1.0
    )
    found = evidence.examine(manifest, frame, pd.DataFrame())
    written = {path.name for path in write_evidence(found, tmp_path)}
    assert {"ranks.svg", "ranks.png", "ranks.md", "ranks.tex", "ranks_values.csv"} <= written
    values = pd.read_csv(tmp_path / "ranks_values.csv")
    assert list(values["Average rank"]) == [1.0, 2.0, 3.0]
    note = (tmp_path / "ranks.md").read_text(encoding="utf-8")
    assert "its smallest p is 0.0312, corrected 0.0938: it cannot distinguish any pair" in note


@pytest.mark.parametrize("hosts", [5, 4])
def test_a_page_shows_ranks_also_where_one_seed_allows_no_interval(tmp_path: Path, hosts: int) -> None:
    runs = []
    for place, (host, op) in enumerate(itertools.product("vwxyz"[:hosts], "abc")):
        settings = {**configuration(op, 0), "host": {"name": host}}
        run = PlannedRun(signature(settings), "", 0, {"op": op, "host": host})
        fabricate_run(tmp_path, run, 50.0 + place)
        (tmp_path / run.signature / "config.yaml").write_text(yaml.safe_dump(settings))
        runs.append(run)
    Manifest("hosts", baseline={"op": "a", "host": "v"}, factors=["op", "host"], runs=runs).save(tmp_path)
    page = report(tmp_path, "hosts")[0].read_text(encoding="utf-8")
    assert ("Over host" in page) == ("Critical-difference diagram" in page) == (hosts == 5)
    assert (tmp_path / "studies" / "hosts" / "report" / "ranks.svg").exists() == (hosts == 5)


def test_the_diagram_joins_what_is_not_distinguished() -> None:
    found = ranks.rank(AREAS, NAMES, confidence=0.9)
    (axes,) = figures.critical_difference(found).axes
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 3.5]
    expected = [
        (found.averages[a] - 0.02, found.averages[b] + 0.02) for a, b in (*found.nemenyi, *found.wilcoxon)
    ]
    assert np.array(bars) == pytest.approx(np.array(expected))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(found.conditions)
