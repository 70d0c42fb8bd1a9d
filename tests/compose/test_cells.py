"""Cells of a sweep that a study keeps and leaves out."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ablate.compose import cells
from ablate.compose.request import Request
from ablate.errors import UserError
from ablate.store import manifest

TINY = ("data=synthetic", "recipe=debug", "recipe.epochs=1", "infra.threads=1", "infra.device=cpu")


def grid(**study: Any) -> list[Request]:
    node = {**dict.fromkeys(("name", "question", "factors", "baseline", "paths", "metric")), **study}
    return [
        Request({"study": node}, {"op": op, "op/channel": channel, "seed": seed})
        for op, channel, seed in product(("lsa", "elsa", "dwconv"), ("multi_head", "ghost_head"), "01")
    ]


def kept(**study: Any) -> set[str]:
    found = cells.chosen(grid(**study))
    names = [f"{one.overrides['op']} {one.overrides['op/channel']}" for one in found]
    assert all(names.count(name) == 2 for name in names)  # both seeds
    return set(names)


def test_cells_are_kept_and_left_out() -> None:
    everything = kept()
    assert len(everything) == 6
    assert kept(exclude=["op=dwconv,channel=ghost_head"]) == everything - {"dwconv ghost_head"}
    assert kept(exclude=["op/channel=ghost_head"]) == {name for name in everything if "multi" in name}
    only = ["op=lsa", "op=elsa,channel=ghost_head"]
    assert kept(only=only) == {"lsa multi_head", "lsa ghost_head", "elsa ghost_head"}
    assert kept(exclude=["op=lsa,elsa,channel=ghost_head"]) == everything - {
        "lsa ghost_head",
        "elsa ghost_head",
    }
    assert kept(only=only, exclude=["op=lsa, channel=ghost_head"]) == {"lsa multi_head", "elsa ghost_head"}


def test_zipped_factors_vary_together() -> None:
    node = {
        **dict.fromkeys(("name", "question", "factors", "baseline", "paths", "metric")),
        "zip": ["op, channel"],
    }
    requests = [
        Request({"study": node}, {"op": op, "op/channel": channel, "seed": seed})
        for op, channel, seed in product(("lsa", "elsa"), ("multi_head", "ghost_head"), "01")
    ]
    found = [(one.overrides["op"], one.overrides["op/channel"]) for one in cells.chosen(requests)]
    assert found == [("lsa", "multi_head")] * 2 + [("elsa", "ghost_head")] * 2


def test_what_cannot_exist_is_skipped_where_asked_and_shown(ablate: Any, tmp_path: Path) -> None:
    study = ("study.name=skipping", "op=lsa,elsa,dwconv", "op/region=window,neighborhood", "seed=0,1")
    refused = ablate("train", "-m", *TINY, *study)
    assert refused.code == 2
    done = ablate("train", "-m", *TINY, *study, "study.impossible=skip")
    assert done.code == 0, done.err
    assert "skipped, since it cannot exist" in done.err
    found = manifest.load(tmp_path / "runs", "skipping")
    (reason,) = found.impossible.values()
    assert list(found.impossible) == ["op=elsa op/region=window"]
    assert "no common taps" in reason
    assert len({run.pair_key for run in found.runs}) == 5
    assert ablate("report", "skipping").code == 0
    page = (tmp_path / "runs/studies/skipping/report/index.html").read_text()
    assert "that cannot exist" in page
    assert all(levels in page for levels in found.impossible)
    assert ablate("train", *TINY, "study.impossible=maybe").code == 2


def test_a_setting_that_one_operator_lacks_is_named_with_it_or_skipped(ablate: Any, tmp_path: Path) -> None:
    study = ("study.name=lacking", "op=lsa,conv", "op.channel.heads=1x,C", "seed=0")
    refused = ablate("train", "-m", *TINY, *study)
    assert refused.code == 2
    assert "[op=conv op.channel.heads=1x]" in refused.err
    done = ablate("train", "-m", *TINY, *study, "study.impossible=skip")
    assert done.code == 0, done.err
    assert len(manifest.load(tmp_path / "runs", "lacking").runs) == 2
    assert len(manifest.load(tmp_path / "runs", "lacking").impossible) == 2
    misspelt = ablate("train", "-m", *TINY, "study.name=m", "op=lsa,elza", "study.impossible=skip")
    assert misspelt.code == 2
    assert "did you mean 'elsa'" in misspelt.err


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"exclude": ["op=elsaa"]}, "fits no run.*lsa, elsa, dwconv"),
        ({"exclude": ["chanel=ghost_head"]}, "chanel.*channel"),
        ({"only": ["ghost_head"]}, "factor=level"),
        ({"only": ["op=lsa"], "exclude": ["op=lsa"]}, "leave no run"),
        ({"zip": ["op,channel"]}, "op has 3, channel has 2.*as many"),
        ({"zip": ["op"]}, "does not name different factors"),
        ({"zip": ["op,op"]}, "does not name different factors"),
        ({"zip": ["op,host"]}, "factor of study.zip.*host"),
    ],
)
def test_what_is_no_cell_is_refused(study: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"(?s){said}"):
        cells.chosen(grid(**study))


def test_a_search_has_no_cells() -> None:
    with pytest.raises(UserError, match="search"):
        cells.chosen(grid(only=["op=lsa"]), portion=True)


def test_a_sweep_with_cells_end_to_end(ablate, tmp_path: Path) -> None:
    sweep = ("train", "-m", "op=lsa,dwconv", "op.channel.heads=1,1x", "seed=0", *TINY, "study.name=s")
    done = ablate(*sweep, "study.exclude=['op=dwconv,heads=1']")  # dwconv has no such heads
    assert done.code == 0 and "1 of 4 runs are left out" in done.err, done.err
    runs = manifest.load(tmp_path / "runs", "s").runs
    assert [(run.factors["op"], run.factors["op.channel.heads"]) for run in runs] == [
        ("lsa", "1"),
        ("lsa", "1x"),
        ("dwconv", "1x"),
    ]
    refused = ablate(*sweep, "study.exclude=['op=dwconvv']")
    assert refused.code == 2 and "fits no run" in refused.err
