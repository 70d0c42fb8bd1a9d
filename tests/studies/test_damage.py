"""One damaged file among twelve runs: it is named, its run is computed again, and nothing else suffers."""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests.printed import commands_in

from ablate import cli
from ablate.cli.launchers import LAUNCHERS
from ablate.compose.request import request
from ablate.configuration import conf_dir
from ablate.execution.claim import Claim
from ablate.execution.execute import execute
from ablate.launch.submission import Submission
from ablate.results import figures
from ablate.results.evidence import Evidence
from ablate.store import damage, digests, identity
from ablate.store.files import write_json, write_text
from ablate.store.folder import RunFolder, dump
from ablate.store.manifest import MANIFEST, Manifest, PlannedRun, study_dir
from ablate.studies import sync
from ablate.training import checkpoint
from ablate.training.progress import Silent

FINISHED, FAILED = 9, 3  # runs of the study
# Files of a run folder whose bytes no verb depends on: logs, and the checkpoint before the last one.
FREE = {"output.log", "error.txt", "checkpoint.previous.pt", ".claim.lock"}

Damage = Callable[[bytes], bytes]
KINDS: dict[str, Damage] = {
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "garbled": lambda data: bytes(byte ^ 0xA5 for byte in data),
    "list": lambda data: b"[1, {}]\n",
    "other object": lambda data: b'{"epoch": null, "state": 3, "runs": [{}], "seed": 1}\n',
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that was really trained, with all the files that one has."""
    fixed = ["recipe=debug", "data=synthetic", "infra.tracking=none", "infra.device=cpu", "infra.threads=1"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("train", [*fixed, "op=dwconv", "data.train=64", "recipe.epochs=2"])
    config: Any = OmegaConf.to_container(composed, resolve=True)
    config["study"]["name"] = "study"
    folder = RunFolder(tmp_path_factory.mktemp("trained") / identity.signature(config))
    folder.path.mkdir()
    write_text(folder.config_path, dump(config))
    assert execute(folder.path, config, Silent()).state == "finished"
    assert folder.finished()
    return folder


@pytest.fixture(scope="module")
def study(trained: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a study of twelve, the first of which is the trained one."""
    runs_dir = tmp_path_factory.mktemp("with blank") / "runs"
    planned = []
    for seed in range(FINISHED + FAILED):
        config = {**trained.config(), "seed": seed}
        folder = RunFolder(runs_dir / identity.signature(config))
        shutil.copytree(trained.path, folder.path, ignore=shutil.ignore_patterns("*.previous.pt"))
        write_text(folder.config_path, dump(config))
        (folder.path / "output.log").write_text("printed\n")
        text = folder.status_path.read_text()
        if seed >= FINISHED:
            text = json.dumps({**json.loads(text), "state": "failed", "error": "on purpose"})
            write_text(folder.error_path, "Traceback: on purpose\n")
            folder.result_path.unlink()
            folder.digests_path.unlink()
        else:
            digests.write(folder.path, {"status.json": text}, folder.guard)
        write_text(folder.status_path, text)
        planned.append(PlannedRun(folder.signature, identity.pair_key(config), seed, {"op": "dwconv"}))
    Manifest("study", factors=["op"], runs=planned, command="ablate train study.name=study").save(runs_dir)
    return runs_dir


def stamps(runs_dir: Path) -> dict[str, tuple[int, int, int]]:
    """What changes with every write, by file."""
    found = {name: (runs_dir / name).stat() for name in snapshot(runs_dir, whole=False)}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def snapshot(runs_dir: Path, *, whole: bool = True) -> dict[str, bytes]:
    """Every file but what verbs write for their readers, beside the runs; without contents if not `whole`."""
    return {
        str(path.relative_to(runs_dir)): path.read_bytes() if whole else b""
        for path in runs_dir.rglob("*")
        if path.is_file()
        and path.suffix != ".lock"
        and "report" not in path.parts
        and "look" not in path.parts
    }


def restore(runs_dir: Path, before: dict[str, bytes]) -> None:
    for name, data in snapshot(runs_dir).items():
        if before.get(name) != data:
            (runs_dir / name).unlink()
    for name, data in before.items():
        if not (runs_dir / name).exists():
            (runs_dir / name).write_bytes(data)


def verbs() -> Iterator[tuple[str, ...]]:
    """Each verb that has a folder of runs, with the arguments that it needs; a new verb comes by itself."""
    parser = cli._parser()
    (group,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, sub in group.choices.items():
        options = {action.dest: action for action in sub._actions}
        if "runs_dir" in options:
            names = ["RUN"] if "run" in options and not options["run"].option_strings else []
            names += ["study"] if "study" in options else []
            yield (
                name,
                *names,
                *{
                    "dashboard": ("--offline",),
                    "clean": ("--orphans", "--checkpoints"),
                    "evaluate": ("--run", "RUN", "--device", "cpu"),
                    "diff": ("RUN", "RUN"),
                    "export": ("FILE",),
                    "import": ("FILE",),
                }.get(name, ()),
            )
    yield ("status",)
    yield ("status", "study", "--watch")
    yield ("retry", "study", "--damaged")


VERBS = list(verbs())
SLOW = ("report", "dashboard", "look", "evaluate")  # not with every kind of damage
WRITING = ("retry", "collect", "dashboard")  # the others leave the runs and their study's files as they are


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> list[Submission]:
    """Nothing is drawn, sent or trained; returns what would have been."""
    submitted: list[Submission] = []

    def launch(submission: Submission, console: object) -> dict[str, Any]:
        submitted.append(submission)
        return {}

    def save(figure: object, path: Path, **_: object) -> list[Path]:
        write_text(path.with_suffix(".svg"), "<svg></svg>")
        return [path.with_suffix(".svg")]

    monkeypatch.setitem(LAUNCHERS, "local", launch)
    monkeypatch.setattr(sync, "_send", lambda *_: iter(()))
    monkeypatch.setattr(sync, "_report", lambda *_: "")
    monkeypatch.setattr(figures, "panels", lambda *_: None)
    monkeypatch.setattr(figures, "save", save)
    drawings = Evidence.drawings
    monkeypatch.setattr(Evidence, "drawings", lambda self: dict.fromkeys(drawings(self), lambda: None))
    monkeypatch.setenv("COLUMNS", "300")
    return submitted


def run(arguments: tuple[str, ...], runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and all output of a verb; an exception that is not a user's error ends the test.

    Every command that it prints can be parsed and leads to the same folder of runs.
    """
    capsys.readouterr()
    file = runs_dir.resolve().parent / "archive.zip"
    if arguments[0] == "export":
        file.unlink(missing_ok=True)
    typed = [str(file) if word == "FILE" else word for word in arguments]
    try:
        cli.main([*typed, "--runs-dir", str(runs_dir)])
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    for words in commands_in(printed):
        found = cli.parse(words[1:])
        if "STUDY" not in words:  # in a message that knows the run and no study
            assert found.runs_dir.resolve() == runs_dir.resolve(), words
    return code, printed


def files(study: Path, number: int) -> list[str]:
    """The files of a run that matter, and a claim, as they are on disk."""
    planned = json.loads((study_dir(study, "study") / MANIFEST).read_text())["runs"]
    folder = RunFolder(study / planned[number]["signature"])
    return sorted({path.name for path in folder.path.iterdir() if path.is_file()} - FREE | {"claim.json"})


OF_OTHERS = {"classes.json", "examples.npz", "callbacks.jsonl"}  # of other tasks, of runs with callbacks


def test_every_file_of_a_run_has_a_check(trained: RunFolder) -> None:
    written = {path.name for path in trained.path.iterdir()} - FREE
    assert written <= {*damage.CHECKS, digests.DIGESTS}
    assert written - {digests.DIGESTS} == set(digests.FILES) - OF_OTHERS


@pytest.mark.parametrize(
    ("number", "kind"),
    [*((4, kind) for kind in KINDS), (FINISHED + 1, "half"), (FINISHED + 1, "other object")],
)
def test_a_damaged_file_is_named_and_nothing_else_suffers(
    number: int, kind: str, study: Path, light: list[Submission], capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(study)
    planned = [run["signature"] for run in json.loads(before[f"studies/study/{MANIFEST}"])["runs"]]
    folder = RunFolder(study / planned[number])
    others = {"finished": FINISHED - (number < FINISHED), "failed": FAILED - (number >= FINISHED)}
    claim = {"host": "elsewhere", "pid": 1, "born": "1", "token": "t"}
    for name in files(study, number):
        path = folder.path / name
        original = path.read_bytes() if path.exists() else json.dumps(claim).encode()
        if (changed := KINDS[kind](original)) == original:
            continue
        path.write_bytes(changed)
        damaged, unchanged = snapshot(study), stamps(study)
        printed: dict[tuple[str, ...], str] = {}
        for verb in VERBS:
            if verb[0] in SLOW and (number, kind) != (4, "other object"):
                continue
            arguments = tuple(folder.signature if word == "RUN" else word for word in verb)
            code, printed[verb] = run(arguments, study, capsys)
            assert code in (0, 1, 2), (name, verb, printed[verb])
            if verb[0] in WRITING:
                restore(study, damaged)
                unchanged = stamps(study)
            assert stamps(study) == unchanged, (name, verb)
        where = (name, kind)
        if (name, kind, number >= FINISHED) == ("speed.jsonl", "half", True):
            continue  # what a process leaves that is killed while it writes
        assert f"{name} is damaged" in printed["status", "study"], where
        counted = ", ".join(f"{others[state]} {state}" for state in ("finished", "failed")) + ", 1 damaged"
        assert counted in printed["status", "study"], where
        assert counted in printed[("status",)], where
        assert str(path) in printed["verify", "study"], where
        assert "1 damaged" in printed["collect", "study"], where
        if name == "checkpoint.pt" and ("look", "RUN") in printed:
            assert f"{path} is damaged" in printed["look", "RUN"], where
        every, only = light[-2:]
        assert set(every.ready) == {folder.signature, *planned[FINISHED:]}, where
        assert only.ready == [folder.signature], where
        restore(study, before)
    assert snapshot(study) == before


@pytest.mark.parametrize("name", [MANIFEST, "jobs/20260101-000000-abcdef.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_of_a_study_is_named_and_others_are_shown(
    kind: str, name: str, study: Path, light: list[Submission], capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(study)
    path = study_dir(study, "study") / name
    original = path.read_bytes() if path.exists() else b'{"id": "20260101-000000-abcdef", "packs": []}'
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(KINDS[kind](original))
    (study_dir(study, "other")).mkdir()
    Manifest("other", runs=[]).save(study)
    damaged = snapshot(study)
    signature = json.loads(before[f"studies/study/{MANIFEST}"])["runs"][0]["signature"]
    try:
        for verb in VERBS:
            code, printed = run(tuple(signature if word == "RUN" else word for word in verb), study, capsys)
            assert code in (0, 1, 2), (verb, printed)
            if verb[:2] == ("status", "study") and "--watch" not in verb:
                assert f"{path} is damaged" in printed, verb
            if verb == ("status",):
                assert "other: " in printed
                assert name != MANIFEST or f"{path} is damaged" in printed
            if verb[0] == "clean" and name == MANIFEST:
                assert code == 2  # which runs are orphans is not known
            restore(study, damaged)
    finally:
        shutil.rmtree(study_dir(study, "other"))
        shutil.rmtree(path.parent if name != MANIFEST else path.parent / "report", ignore_errors=True)
        restore(study, before)


def test_a_flipped_byte_is_found_by_verify_and_computed_again_to_the_same_bits(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs_dir = tmp_path / "runs"
    folder = RunFolder(runs_dir / trained.signature)
    run_of_study = PlannedRun(folder.signature, identity.pair_key(trained.config()), 0, {})
    Manifest("study", runs=[run_of_study], command="ablate train").save(runs_dir)
    for name in [*digests.FILES, digests.DIGESTS]:
        if not (trained.path / name).exists():
            continue
        shutil.rmtree(folder.path, ignore_errors=True)
        shutil.copytree(trained.path, folder.path)
        assert run(("verify", "study"), runs_dir, capsys)[0] == 0
        data = bytearray((folder.path / name).read_bytes())
        project = b"wandb_project: ablate"  # a setting that may be anything
        data[data.index(project) + len(project) - 1 if name == "config.yaml" else len(data) * 2 // 3] ^= 1
        (folder.path / name).write_bytes(data)
        code, printed = run(("verify", "study"), runs_dir, capsys)
        assert code == 1
        assert f"{folder.path / name}: " in printed
        if name == "config.yaml" and not folder.read_config()[0]:
            continue  # no other run has its settings: see below
        code, printed = run(("retry", "study", "--damaged", "--launcher", "inline"), runs_dir, capsys)
        assert code == 0, printed
        assert run(("verify", "study"), runs_dir, capsys)[0] == 0, name
        assert folder.metrics_path.read_bytes() == trained.metrics_path.read_bytes()
        found, expected = (checkpoint.load(one.checkpoint_path)[0] for one in (folder, trained))
        assert found is not None
        assert expected is not None
        assert all(torch.equal(found.best[key], value) for key, value in expected.best.items()), name
        figures = (one.result() or {} for one in (folder, trained))
        mine, theirs = ({key: value for key, value in one.items() if "test" in key} for one in figures)
        assert mine == theirs


def test_a_configuration_that_was_changed_is_not_run_under_its_old_signature(
    study: Path, light: list[Submission], capsys: pytest.CaptureFixture[str]
) -> None:
    """Valid YAML with another learning rate: its run is rebuilt from another seed, to the same signature."""
    before = snapshot(study)
    planned = [run["signature"] for run in json.loads(before[f"studies/study/{MANIFEST}"])["runs"]]
    folder = RunFolder(study / planned[2])
    config = copy.deepcopy(folder.config())
    config["recipe"]["learning_rate"] = 0.5
    write_text(folder.config_path, dump(config))
    run(("retry", "study", "--damaged"), study, capsys)
    assert light[-1].ready == [folder.signature]
    assert identity.signature(folder.config()) == folder.signature
    restore(study, before)


def test_a_run_that_finished_without_digests_stays_finished(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(study)
    for path in study.glob(f"*/{digests.DIGESTS}"):
        path.unlink()
    code, printed = run(("verify", "study"), study, capsys)
    assert code == 0
    assert f"{FINISHED} without digests" in printed
    assert f"{FINISHED} finished" in run(("status",), study, capsys)[1]
    restore(study, before)


def test_a_claim_of_another_shape_is_nobodys(tmp_path: Path) -> None:
    for content in ({}, {"pid": "x", "host": 3}, [], {"pid": 1}):
        write_json(tmp_path / "claim.json", content)
        from ablate.execution.claim import claim, living_holder

        assert living_holder(tmp_path) is None
        with claim(tmp_path) as mine:
            assert isinstance(mine, Claim)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_verb_does_not_depend_on_the_working_directory_nor_on_what_others_left(
    verb: tuple[str, ...],
    study: Path,
    light: list[Submission],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the folder above, a subfolder and elsewhere, with relative and absolute paths, among debris."""
    before = snapshot(study)
    planned = [run["signature"] for run in json.loads(before[f"studies/study/{MANIFEST}"])["runs"]]
    for debris in ("0123456789ab", "studies/half/report", "studies/study/jobs/x", ".launchers", ".hydra"):
        (study / debris).mkdir(parents=True, exist_ok=True)
    (study / ".launchers" / "x.json").write_text("{")
    (study / planned[0] / ".result.json.abc.part").write_text("{")
    (study.parent / "sub folder").mkdir(exist_ok=True)
    left, unchanged = snapshot(study), stamps(study)
    said: dict[str, tuple[int, str, list[str]]] = {}
    for place, relative in ((study.parent, True), (study.parent / "sub folder", True), (tmp_path, False)):
        monkeypatch.chdir(place)
        runs_dir = Path(os.path.relpath(study)) if relative else study
        arguments = tuple(planned[0] if word == "RUN" else word for word in verb)
        code, printed = run(arguments, runs_dir, capsys)
        submitted = light.pop().ready if verb[0] == "retry" and light else []
        text = printed.replace(f"{study}/", "R/").replace(f"{runs_dir}/", "R/")
        said[f"{place} {runs_dir}"] = (code, "" if "ablate " in text else text, submitted)
        if verb[0] not in WRITING:
            assert stamps(study) == unchanged
        restore(study, left)
    for debris in ("0123456789ab", "studies/half", "studies/study/jobs", ".launchers", ".hydra"):
        shutil.rmtree(study / debris)
    (study / planned[0] / ".result.json.abc.part").unlink()
    restore(study, before)
    assert len({str(one) for one in said.values()}) == 1, said
    assert next(iter(said.values()))[0] in (0, 1), said


def test_a_folder_of_data_is_frozen_as_it_is_seen_at_submission(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = trained.config()
    config["infra"]["data_root"] = "data"
    assert request(config, []).config["infra"]["data_root"] == str(tmp_path / "data")
