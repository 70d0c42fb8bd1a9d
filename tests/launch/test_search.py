"""The search: what is drawn, what is told to the sampler, and how it is resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf

from ablate.errors import UserError
from ablate.execution import claim
from ablate.launch.search.space import read_space
from ablate.launch.search.sweeper import NODE, PRUNERS, Search
from ablate.store.files import read_json, write_json
from ablate.store.folder import PRUNED, RUNNING, RunFolder
from ablate.store.identity import digest

DRAWN = [
    "op=dwconv,elsa",
    "op.ghost=interval(0.0,1.0)",
    "rate=tag(log, interval(1e-4, 1e-2))",
    "k=range(3,9,2)",
]


class Trained:
    """Stand-in for a launcher: validation accuracy is the learning rate, or there is none."""

    def __init__(self, runs_dir: Path, *, refuse: str = "", die_after: int = 1000) -> None:
        self.runs_dir, self.refuse, self.die_after = runs_dir, refuse, die_after
        self.seen: list[list[str]] = []

    def check_search(self) -> None:
        pass

    def signature(self, overrides: Sequence[str]) -> str:
        return digest({"overrides": sorted(overrides)})

    def refusal(self, overrides: Sequence[str]) -> UserError | None:
        return UserError("cannot be") if self.refuse and self.refuse in overrides else None

    def train(self, job_overrides: Sequence[Sequence[str]], *, searching: bool) -> None:
        for overrides in job_overrides:
            self.seen.append(list(overrides))
            if len(self.seen) > self.die_after:
                raise KeyboardInterrupt
            folder = RunFolder(self.runs_dir / self.signature(overrides))
            folder.path.mkdir()
            value = float(dict(o.split("=") for o in overrides)["rate"])
            if value < 1:
                write_json(folder.result_path, {"validation_top1": value, "test_top1": value})


def search(runs_dir: Path, launcher: Trained, overrides: list[str], **settings: Any) -> optuna.Study:
    sampler = OmegaConf.create({"_target_": "optuna.samplers.RandomSampler", "seed": 1})
    one = Search(**{**NODE, "sampler": sampler, "pruner": PRUNERS["none"], "n_jobs": 2, **settings})
    one.study, one.runs_dir, one.launcher = "s", runs_dir, launcher  # type: ignore[assignment]
    one.sweep(overrides)
    return one._open("s", runs_dir / "studies" / "s")


def test_the_syntax_of_sweeps_is_a_space() -> None:
    space = read_space([*DRAWN, "n=int(interval(1,9))", "fixed='2x'"], {"op.ghost": {"op": "elsa"}})
    kinds = {name: str(distribution) for name, distribution in space.distributions.items()}
    assert kinds == {
        "op": "CategoricalDistribution(choices=('dwconv', 'elsa'))",
        "op.ghost": "FloatDistribution(high=1.0, log=False, low=0.0, step=None)",
        "rate": "FloatDistribution(high=0.01, log=True, low=0.0001, step=None)",
        "k": "IntDistribution(high=7, log=False, low=3, step=2)",
        "n": "IntDistribution(high=9, log=False, low=1, step=1)",
    }
    assert space.fixed == {"fixed": "'2x'"}
    for overrides, conditions, problem in (
        (["a=1"], {}, "nothing to draw"),
        (DRAWN, {"op.goast": {"op": "elsa"}}, "did you mean 'op.ghost'"),
        (DRAWN, {"op": {"k": 3}}, "must be drawn before it"),
    ):
        with pytest.raises(UserError, match=problem):
            read_space(overrides, conditions)


def test_a_conditional_parameter_is_drawn_only_where_it_means_something(tmp_path: Path) -> None:
    launcher = Trained(tmp_path)
    search(tmp_path, launcher, DRAWN, n_trials=12, conditions={"op.ghost": {"op": ["elsa"]}})
    ghosts = {("op=elsa" in run, any("ghost" in override for override in run)) for run in launcher.seen}
    assert ghosts == {(True, True), (False, False)}


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/s.db"])
def test_a_search_is_continued_without_a_draw_twice(storage: str | None, tmp_path: Path) -> None:
    settings = {"storage": storage and storage.format(tmp_path)}
    launcher = Trained(tmp_path)
    for n_trials in (4, 4, 6):
        study = search(tmp_path, launcher, DRAWN, n_trials=n_trials, **settings)
        assert len(launcher.seen) == len(study.trials) == n_trials
    assert len({tuple(run) for run in launcher.seen}) == 6
    assert study.best_trial.user_attrs["run"] == read_json(tmp_path / "studies/s/search.json")["run"]


def test_trials_of_a_process_that_died_are_trained_first_as_they_were_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = claim.this_process()
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(claim, "this_process", lambda: {**here, "pid": dead.pid})
        search(tmp_path, killed := Trained(tmp_path, die_after=2), DRAWN, n_trials=4)
    again = Trained(tmp_path)
    study = search(tmp_path, again, DRAWN, n_trials=4)
    assert again.seen[0] == killed.seen[2]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    assert os.getpid() == here["pid"]


def test_what_cannot_be_trained_fails_alone_unless_nothing_can(tmp_path: Path) -> None:
    study = search(tmp_path, Trained(tmp_path, refuse="op=elsa"), DRAWN, n_trials=8)
    states = {trial.params["op"]: trial.state.name for trial in study.trials}
    assert states == {"dwconv": "COMPLETE", "elsa": "FAIL"}
    with pytest.raises(UserError, match="cannot be"):
        search(tmp_path / "other", Trained(tmp_path, refuse="fixed=1"), [*DRAWN, "fixed=1"], n_trials=30)
    with pytest.raises(UserError, match="10 of 10 trials failed"):
        search(tmp_path / "third", Trained(tmp_path / "third"), ["rate=interval(1.0,2.0)"], n_trials=40)


class Watched(Trained):
    """Stand-in for a launcher whose runs write an epoch at a time, and end when they are asked to."""

    def train(self, job_overrides: Sequence[Sequence[str]], *, searching: bool) -> None:
        for overrides in job_overrides:
            self.seen.append(list(overrides))
            folder = RunFolder(self.runs_dir / self.signature(overrides))
            folder.path.mkdir()
            write_json(folder.status_path, {"state": RUNNING})
            rate = float(dict(override.split("=") for override in overrides)["rate"])
            for epoch in range(1, 4):
                with folder.metrics_path.open("a") as lines:
                    print(json.dumps({"epoch": epoch, "validation_top1": rate * epoch}), file=lines)
                deadline = time.monotonic() + (60 if epoch == 2 and rate < 5 else 0)
                while not folder.prune_path.exists() and time.monotonic() < deadline:
                    time.sleep(0.05)
                if folder.prune_path.exists():
                    reason = str(read_json(folder.prune_path)["reason"])
                    write_json(folder.status_path, {"state": PRUNED, "error": reason})
                    break
            else:
                write_json(folder.result_path, {"validation_top1": rate * 3, "test_top1": 0.0})


def test_a_pruner_sees_every_epoch_of_a_run_at_work_and_ends_it(tmp_path: Path) -> None:
    pruner = {"_target_": "optuna.pruners.ThresholdPruner", "lower": 10.0, "n_warmup_steps": 2}
    settings = {"pruner": OmegaConf.create(pruner), "n_trials": 2, "n_jobs": 1}
    sampler = OmegaConf.create({"_target_": "optuna.samplers.BruteForceSampler", "seed": None})
    study = search(tmp_path, Watched(tmp_path), ["rate=choice(1,7)"], **settings, sampler=sampler)
    ends = {trial.params["rate"]: trial for trial in study.trials}
    assert ends["7"].state.name == "COMPLETE"
    assert ends["7"].value == 21
    assert ends["1"].state.name == "PRUNED"
    assert ends["1"].intermediate_values == {1: 1.0, 2: 2.0}
    assert read_json(tmp_path / "studies/s/search.json")["pruned"] == 1
