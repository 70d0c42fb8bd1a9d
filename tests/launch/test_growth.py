"""A study's design is derived from all its runs: in portions, in any order, however levels are spelled."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.compose.request import Request
from ablate.compose.study import Study
from ablate.compose.study import read as read_study
from ablate.errors import UserError
from ablate.launch import growth
from ablate.launch.growth import Member, grow, text
from ablate.launch.plan import Plan
from ablate.results import conditions
from ablate.store import identity, manifest
from ablate.store.folder import RunFolder, dump
from ablate.studies.remove import remove

BARE = Study(None, None, None, None, None, "test_top1")
CONFIG: dict[str, Any] = {
    "op": {"name": "lsa", "channel": {"heads": "1x"}, "norm": {"name": "softmax"}},
    "recipe": {"learning_rate": 1e-3, "ema_decay": None, "milestones": [3, 5], "epochs": 2},
    "seed": 0,
    "infra": {},
    "study": {"name": "s"},
}
SPELLINGS = {  # override → the value that Hydra resolves it to
    "recipe.learning_rate": [("1e-3", 1e-3), ("0.001", 1e-3), ("1e-2", 1e-2)],
    "recipe.ema_decay": [("null", None), ("0", 0), ("0.0", 0.0), ("0.5", 0.5)],
    "recipe.milestones": [("[3,5]", [3, 5]), ("[3, 5]", [3, 5]), ("[4]", [4])],
    "op.channel.heads": [("'2x'", "2x"), ("2x", "2x"), ("1x", "1x"), ("C", "C")],
    "recipe.epochs": [("2", 2), ("3", 3)],
    "seed": [("0", 0), ("1", 1)],
}


def member(overrides: dict[str, str], values: dict[str, Any] | None = None, **extra: Any) -> Member:
    config = copy.deepcopy(CONFIG)
    for key, value in {**(values or {}), **extra}.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    levels = {key: level for key, level in overrides.items() if key != "seed"}
    return Member(
        identity.signature(config), identity.pair_key(config), config["seed"], levels, source=config
    )


@st.composite
def members(draw: st.DrawFn) -> Member:
    chosen = draw(st.dictionaries(st.sampled_from(sorted(SPELLINGS)), st.integers(0, 3), max_size=4))
    picked = {key: SPELLINGS[key][index % len(SPELLINGS[key])] for key, index in chosen.items()}
    return member({k: spelled for k, (spelled, _) in picked.items()}, {k: v for k, (_, v) in picked.items()})


def freeze(run: Member, runs_dir: Path) -> None:
    folder = RunFolder(runs_dir / run.signature)
    folder.path.mkdir(exist_ok=True)
    folder.config_path.write_text(dump(dict(run.config)))


@settings(max_examples=40, deadline=None)
@given(portions=st.lists(st.lists(members(), min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_study_in_portions_is_the_study_at_once(
    portions: list[list[Member]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And one setting is one condition: conditions are told apart exactly where configurations differ."""
    runs_dir = tmp_path_factory.mktemp("runs")
    grown = None
    for portion in portions:
        for run in portion:
            freeze(run, runs_dir)
        grown = grow(grown, "s", portion, BARE, runs_dir)
        grown.save(runs_dir)
        grown = manifest.load(runs_dir, "s")
    assert grown is not None
    at_once = grow(None, "s", [run for portion in portions for run in portion], BARE, runs_dir)
    assert {run.signature: run.pair_key for run in grown.runs} == {
        run.signature: run.pair_key for run in at_once.runs
    }
    for planned in (grown, at_once):
        pairs = {
            (run.pair_key, label) for run, label in zip(planned.runs, conditions.labels(planned), strict=True)
        }
        keys, labels = zip(*pairs, strict=True)
        assert len(set(keys)) == len(set(labels)) == len(pairs)
    if grown.factors:
        assert set(at_once.factors) <= set(grown.factors)


def test_levels_that_an_earlier_version_spelled_are_found_again(tmp_path: Path) -> None:
    run = member({"recipe.learning_rate": "1e-2"}, {"recipe.learning_rate": 1e-2})
    freeze(run, tmp_path)
    old = manifest.Manifest(
        "s",
        factors=["recipe.learning_rate"],
        runs=[manifest.PlannedRun(run.signature, run.pair_key, 0, {"recipe.learning_rate": "1e-2"})],
    )
    added = member({"recipe.learning_rate": "0.01", "seed": "1"}, {"recipe.learning_rate": 0.01}, seed=1)
    assert len(set(conditions.labels(grow(old, "s", [added], BARE, tmp_path)))) == 1


def test_a_file_edited_between_portions_makes_its_setting_a_factor(tmp_path: Path) -> None:
    before, after = member({"op": "lsa"}), member({"op": "lsa"}, {"recipe.epochs": 7})
    freeze(before, tmp_path)
    study = replace(BARE, factors=("op",), baseline={"op": "lsa"})
    first = grow(None, "s", [before], study, tmp_path)
    second = grow(first, "s", [after], study, tmp_path)
    assert second.factors == ["op", "recipe.epochs"]
    assert second.baseline == {"op": "lsa", "recipe.epochs": "7"}, "the newest is compared with the newest"
    assert not list(growth.check(second))


@pytest.mark.parametrize(("level", "condition"), [(None, "null"), (0.5, "0.5"), (0.0, "0")])
def test_a_baseline_is_a_value_and_not_a_spelling(
    level: float | None, condition: str, tmp_path: Path
) -> None:
    runs = [
        member({}),
        *(member({"recipe.ema_decay": s}, {"recipe.ema_decay": v}) for s, v in SPELLINGS["recipe.ema_decay"]),
    ]
    planned = grow(None, "s", runs, replace(BARE, baseline={"recipe.ema_decay": level}), tmp_path)
    assert conditions.baseline(planned) == condition
    assert len(planned.runs) == 3, "null and 0.0 were there already"


def test_what_a_report_would_refuse_is_known_before_a_run(tmp_path: Path) -> None:
    runs = [member({"op": name}, {"op.name": name}) for name in ("lsa", "dwconv")]
    wrong = replace(BARE, baseline={"op": "elsa"}, paths={"walk": ["lsa", "dvconv"]})
    baseline, path = growth.check(grow(None, "s", runs, wrong, tmp_path))
    assert "matches no condition" in str(baseline)
    assert "did you mean 'dwconv'" in str(path)


def test_removal_undoes_growth(tmp_path: Path) -> None:
    study = replace(BARE, factors=("op",), baseline={"op": "lsa"})
    small = [member({"op": name}, {"op.name": name}) for name in ("lsa", "dwconv")]
    large = [
        member({"op": n, "recipe.epochs": "9"}, {"op.name": n, "recipe.epochs": 9}) for n in ("lsa", "dwconv")
    ]
    for run in (*small, *large):
        freeze(run, tmp_path)
    before = grow(None, "s", small, study, tmp_path)
    grow(before, "s", large, study, tmp_path).save(tmp_path)
    remove(tmp_path, "s", ["recipe.epochs=9"], [])
    after = manifest.load(tmp_path, "s")
    assert (after.factors, after.baseline) == (before.factors, before.baseline)
    assert [(run.signature, run.factors) for run in after.runs] == [
        (run.signature, run.factors) for run in before.runs
    ]
    for levels, runs, problem in (
        ([], [], "no run was named"),
        (["recipe.epoch=9"], [], "unknown factor"),
        (["op=dwcon"], [], "did you mean 'dwconv'"),
        ([], ["zz"], "no run of the study begins"),
        (["op=lsa", "op=dwconv"], [], "nothing would be left"),
    ):
        with pytest.raises(UserError, match=problem):
            remove(tmp_path, "s", levels, runs)
    assert manifest.load(tmp_path, "s") == after


def test_texts_of_levels() -> None:
    values = [None, "null", True, "true", 1, 1.0, 1e-5, "C", [1, 2.0], {"a": None}]
    assert [*map(text, values)] == [
        "null",
        "'null'",
        "true",
        "'true'",
        "1",
        "1",
        "1e-05",
        "C",
        "[1,2]",
        "{a:null}",
    ]


def test_a_study_records_each_of_its_commands_once(tmp_path: Path) -> None:
    """However often what it has is submitted again."""
    first, second = member({"op": "lsa"}), member({"op": "lsa"}, {"recipe.epochs": 3})

    def submitted(run: Member, command: str) -> str:
        request = Request(dict(run.config), dict(run.overrides))
        planned = Plan([request], tmp_path, command).manifest()
        manifest.study_dir(tmp_path, "s").mkdir(parents=True, exist_ok=True)
        planned.save(tmp_path)
        return planned.command

    study = {"name": "s", "question": None, "factors": None, "baseline": None, "paths": None}
    for run in (first, second):
        run.config["study"].update(study, metric="test_top1")
    commands = [submitted(run, f"ablate train {name}") for run, name in ((first, "a"), (second, "b"))]
    assert commands[-1] == "ablate train a\nablate train b"
    for _ in range(3):
        assert submitted(first, "ablate train again") == commands[-1]


def test_the_margin_that_was_set_first_stays_and_the_study_says_so(tmp_path: Path) -> None:
    """Of one metric; and the manifest counts the runs that had finished when it was set."""
    first, second = member({"op": "lsa"}), member({"op": "elsa"}, {"op.name": "elsa"})
    for run in (first, second):
        freeze(run, tmp_path)
    fixed = grow(None, "s", [first], replace(BARE, margin=0.5), tmp_path)
    assert (fixed.margin, fixed.margin_after) == (0.5, 0)
    fixed.save(tmp_path)
    assert manifest.load(tmp_path, "s") == fixed
    RunFolder(tmp_path / first.signature).status_path.write_text('{"state": "finished"}')
    again = grow(fixed, "s", [second], replace(BARE, margin=2.0), tmp_path)
    assert (again.margin, again.margin_after) == (0.5, 0)
    assert grow(fixed, "s", [second], BARE, tmp_path).margin == 0.5
    late = grow(grow(None, "s", [first], BARE, tmp_path), "s", [second], replace(BARE, margin=2.0), tmp_path)
    assert (late.margin, late.margin_after) == (2.0, 1)
    of_loss = replace(BARE, metric="test_loss")
    assert grow(fixed, "s", [second], of_loss, tmp_path).margin is None, "a margin has the unit of its metric"

    study = {"name": "s", "question": None, "factors": None, "baseline": None, "paths": None}
    second.config["study"].update(study, metric="test_top1", margin=2.0)
    notes: list[str] = []
    Plan([Request(dict(second.config), dict(second.overrides))], tmp_path, "ablate train").save(notes.append)
    (note,) = (note for note in notes if "keeps the margin" in note)
    assert "study s keeps the margin 0.5 that was set first; study.margin=2 is not used" in note
    assert "--margin 2" in note


@pytest.mark.parametrize("margin", ["x", True, 0, -1.0, float("nan")])
def test_a_margin_is_a_positive_number(margin: Any, tmp_path: Path) -> None:
    """In a study's settings; a manifest with another one is damaged, and one without it is an earlier one."""
    settings = {
        "name": "s",
        "question": None,
        "factors": None,
        "baseline": None,
        "paths": None,
        "metric": None,
    }
    assert read_study(settings).margin is None
    with pytest.raises(UserError, match=r"study\.margin"):
        read_study({**settings, "margin": margin})
    path = manifest.Manifest("s").save(tmp_path)
    record = json.loads(path.read_text())
    del record["margin"], record["margin_after"]
    path.write_text(json.dumps(record))
    assert manifest.load(tmp_path, "s").margin is None
    path.write_text(json.dumps({**record, "margin": margin}))
    with pytest.raises(manifest.DamagedManifestError):
        manifest.load(tmp_path, "s")
