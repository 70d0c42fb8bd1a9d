"""Which runs are paired, which are counted as missing, and with what they are compared."""

import math

import pytest

from ablate.errors import UserError
from ablate.results.collect import collect
from ablate.results.comparisons import analyse
from ablate.results.conditions import baseline, labels, short_names
from ablate.store.files import write_text
from ablate.store.folder import RunFolder
from ablate.store.manifest import Manifest, PlannedRun


@pytest.fixture
def findings(half_finished, tmp_path):
    return analyse(half_finished, collect(tmp_path, "quick"))


def test_only_seeds_finished_in_both_are_paired(findings):
    elsa, dwconv = findings.comparisons
    assert (elsa.seeds, dwconv.seeds) == ((0, 1), (0,))
    assert elsa.differences == pytest.approx((1.0, 0.6))
    assert (elsa.mean_condition, elsa.mean_baseline) == pytest.approx((85.05, 84.25))
    assert (elsa.missing, dwconv.missing) == (1, 2)
    assert elsa.smallest_p == 0.5


def test_one_pair_gives_a_difference_and_no_interval(findings):
    dwconv = findings.comparisons[1]
    assert dwconv.difference == -1.0
    assert (
        math.isnan(dwconv.interval[0]) and math.isnan(dwconv.bootstrap[0]) and math.isnan(dwconv.effect_size)
    )


def test_a_figure_that_is_not_finite_does_not_count(fabricate, tmp_path):
    manifest = fabricate({"lsa": {0: 84.0, 1: 84.0}, "elsa": {0: 85.0, 1: 85.0}})
    write_text(RunFolder(tmp_path / manifest.runs[1].signature).result_path, '{"test_top1": NaN}')
    findings = analyse(manifest, collect(tmp_path, "quick"))
    assert findings.comparisons[0].seeds == (0,)
    assert list(findings.unfinished()["seed"]) == [1]


def test_two_runs_of_a_condition_with_one_seed_are_refused(fabricate, tmp_path):
    runs = [PlannedRun(signature * 12, "a", 0, {"op": "lsa"}) for signature in "01"]
    manifest = fabricate({}, runs=runs)
    with pytest.raises(UserError, match=r"2 runs with seed 0: 0{12}, 1{12}"):
        analyse(manifest, collect(tmp_path, "quick"))


def test_an_unknown_metric_is_named(fabricate, tmp_path):
    manifest = fabricate({"lsa": {0: 84.0}}, metric="test_top_1")
    with pytest.raises(UserError, match="did you mean 'test_top1'"):
        analyse(manifest, collect(tmp_path, "quick"))


FACTORIAL = Manifest(
    name="factorial",
    factors=["op/region", "op.channel.heads"],
    runs=[
        PlannedRun(f"{region}{heads}", "", 0, {"op/region": region, "op.channel.heads": heads})
        for region in ("window", "global")
        for heads in ("1x", "C")
    ],
)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({}, "region=window, heads=1x"),
        ({"op/region": "global", "op.channel.heads": "C"}, "region=global, heads=C"),
    ],
)
def test_the_baseline_is_the_declared_condition_or_the_first(declared, expected):
    FACTORIAL.baseline = declared
    assert baseline(FACTORIAL) == expected


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"op/region": "windw"}, "matches no condition"),
        ({"op/region": "window"}, "matches several conditions"),
    ],
)
def test_a_baseline_that_is_no_single_condition_is_refused_with_the_choices(declared, reason):
    FACTORIAL.baseline = declared
    with pytest.raises(UserError, match=reason) as refusal:
        baseline(FACTORIAL)
    assert "region=window, heads=C" in refusal.value.way_out


def test_names_and_labels():
    assert labels(FACTORIAL)[0] == "region=window, heads=1x"
    assert short_names(["op.channel.heads", "host.heads"]) == ["channel.heads", "host.heads"]
    assert labels(Manifest(name="single", runs=[PlannedRun("0", "", 0, {})])) == ["single"]
