"""Plug-ins from outside the repository, by the command line as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests import command
from tests.plugins import laboratory
from tests.plugins.laboratory import FILE, TINY, file_with_configuration, importable

from ablate.store.folder import RunFolder
from ablate.store.manifest import load

Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(tmp_path: Path) -> Typed:
    """Run `ablate` in a process of its own, without the plug-ins of the tests' own process."""

    def run(
        *arguments: str, code: int | None = 0, folder: Path = tmp_path, **variables: str
    ) -> tuple[int, str]:
        environment = {
            "ABLATE_PLUGINS": "",
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "COLUMNS": "250",
        }
        done = command.run(*arguments, folder=folder, environment={**environment, **variables}, timeout=600)
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        assert code is None or done.returncode == code, said
        return done.returncode, said

    return run


def test_a_package_with_everything_of_its_own(typed: Typed, tmp_path: Path) -> None:
    """Trained inline and by workers, looked at, reported: installed by pip, and found by its entry point."""
    path = importable(laboratory.installed(tmp_path / "package"))
    chosen = ("infra.callbacks=[gradient,clumsy]", *TINY)
    _, said = typed("train", "study=laboratory", *chosen, PYTHONPATH=path)
    assert "4 finished" in said
    assert said.count("callback 'clumsy' is switched off: KeyError: 'no such figure' (") == 4
    assert "everything.py:" in said
    by_workers = ("hydra/launcher=local", "infra.launcher.workers=1")
    _, said = typed("train", "study=laboratory", "seed=2", *by_workers, *chosen, PYTHONPATH=path)
    assert "2 finished" in said
    runs = tmp_path / "runs"
    folders = [RunFolder(runs / run.signature) for run in load(runs, "laboratory").runs]
    for folder in folders:
        result, code = folder.result() or {}, (folder.environment() or {})["code"]
        assert result["gradient_steps"] == 2 * 4
        assert result["test_confidence"] > 50
        assert "laboratory.everything" in code["digests"]
        assert (folder.environment() or {})["versions"]["laboratory"] == "0.7"
        assert [line["epoch"] for line in folder.callbacks()] == [1, 2]
        for line, figures in zip(folder.callbacks(), folder.metrics(), strict=True):
            assert line["gradient_norm"] > 0
            assert line["gradient_confident"] == figures["validation_confidence"] / 100
            assert "gradient_norm" not in figures
    # a callback changes no bit: neither by the weights that it sees nor by numbers that it draws
    plain = typed("train", "op=averaging", "host=one_block", "data=stripes", "recipe=debug", *TINY,
                  "infra.runs_dir=plain", PYTHONPATH=path)[1]  # fmt: skip
    assert "switched off" not in plain
    (alone,) = (file.parent for file in (tmp_path / "plain").glob("*/metrics.jsonl"))
    assert (alone / "metrics.jsonl").read_bytes() == (runs / alone.name / "metrics.jsonl").read_bytes()
    _, said = typed("report", "laboratory", PYTHONPATH=path)
    assert "my_point" in said
    page = (runs / "studies" / "laboratory" / "report" / "index.html").read_text()
    assert "mean confidence" in page.lower()
    rows = (runs / "studies" / "laboratory" / "report" / "results.csv").read_text().splitlines()
    assert "test_confidence" in rows[0]
    assert "gradient_steps" in rows[0]
    assert typed("status", "laboratory", PYTHONPATH=path)[1].count("finished") >= 6
    _, said = typed("look", alone.name, "--runs-dir", "plain", "--images", "1", code=None, PYTHONPATH=path)
    assert "unknown" not in said


REFUSED = {  # a setting of the package, and what the message says about it
    "op.border=REFLEC": "did you mean 'REFLECT'",
    "op.kernels=3": "expected tuple[int, ...]",
    "+op.scaling.powers=2": "did you mean 'op.scaling.power'",
    "+host.widht=3": "did you mean 'width'",
    "study.metric=test_confidenc": "did you mean 'test_confidence'",
    "infra.callbacks=[gradien]": "did you mean 'gradient'",
    "op=averagin": "did you mean 'averaging'",
    "data=stripe": "did you mean 'stripes'",
}
SEVERAL = """
import json, sys
from ablate import cli
for words in json.loads(sys.argv[1]):
    try:
        cli.main(words)
    except SystemExit as ended:
        print("ended with", ended.code, file=sys.stderr, flush=True)
"""


def test_settings_of_ones_own_are_checked_as_those_of_the_project(tmp_path: Path) -> None:
    path = importable(laboratory.write(tmp_path / "package"))
    fixed = ["train", "op=averaging", "host=one_block", "data=stripes", "recipe=debug", *TINY]
    commands = [[*fixed, setting] for setting in REFUSED]
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps(commands)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "ABLATE_PLUGINS": "laboratory.everything"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    messages = done.stderr.split("ended with 2\n")
    assert len(messages) == len(REFUSED) + 1, done.stderr
    for words, message in zip(REFUSED.values(), messages, strict=False):
        assert words in message, message
    assert not (tmp_path / "runs").exists()


def test_a_file_that_the_command_names(typed: Typed, tmp_path: Path) -> None:
    """The run remembers it; verbs that read runs load it for this user only."""
    file = file_with_configuration(tmp_path / "code")
    fixed = ("op=mine", "data=synthetic", "recipe=debug", "study.name=s", *TINY)
    typed("train", f"infra.plugins=[code/{file.name}]", *fixed)
    (signature,) = (path.parent.name for path in (tmp_path / "runs").glob("*/result.json"))
    assert RunFolder(tmp_path / "runs" / signature).config()["infra"]["plugins"] == [str(file)]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    there = ("--runs-dir", "../runs")
    file.write_text(FILE + "\nprint('the file of mine is run')\n")
    assert "the file of mine is run" in typed("status", "s", *there, folder=elsewhere)[1]
    _, said = typed("status", "s", *there, folder=elsewhere, XDG_CONFIG_HOME=str(elsewhere))
    assert f"plug-in {file} is not loaded: the runs name it, and you never did" in said
    assert "the file of mine is run" not in said
    _, said = typed("ops", "mine", f"infra.plugins={file}", folder=elsewhere)
    assert "op.heads=2x" in said
    file.write_text("1 / 0\n")
    _, said = typed("train", f"infra.plugins=[code/{file.name}]", *fixed, "seed=1", code=2)
    assert "ZeroDivisionError" in said
    assert f"{file}:1" in said
    _, said = typed("report", "s")  # the page of its runs is there, and says what it lacks
    assert "not loaded" in said
    page = (tmp_path / "runs" / "studies" / "s" / "report" / "index.html").read_text()
    assert '<p class="notice">not loaded: ' in page


def test_a_preset_is_made_of_another_and_never_of_itself(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "presets.py").write_text("")
    folder = tmp_path / "conf" / "op"
    folder.mkdir(parents=True)
    made = {
        "wide_elsa": "elsa, _self_]\nname: wide_elsa\nchannel:\n  heads: C",
        "wider": "wide_elsa, override region: neighborhood, _self_]\nname: wider\nregion:\n  kernel: 5",
        "one": "two, _self_]\nname: one",
        "two": "one, _self_]\nname: two",
        "lost": "elza, _self_]\nname: lost",
    }
    for name, text in made.items():
        (folder / f"{name}.yaml").write_text(f"# Of a test.\ndefaults: [{text}\n")
    _, said = typed("ops", "wide_elsa", "infra.plugins=[presets.py]")
    assert "op.channel.heads=C" in said
    small = ("data=synthetic", "recipe=debug", "recipe.epochs=1", *TINY)
    _, said = typed("train", "op=wider", "infra.plugins=[presets.py]", *small)
    assert "test top-1" in said
    config = yaml.safe_load(next((tmp_path / "runs").glob("*/config.yaml")).read_text())["op"]
    assert (config["name"], config["channel"]["heads"], config["region"]["kernel"]) == ("wider", "C", 5)
    _, said = typed("ops", "infra.plugins=[presets.py]")
    assert "is made of itself" in said
    assert "names 'elza', which is no preset" in said


HALF = """
from ablate import callbacks, ops
from ablate.callbacks import Callback

callbacks.register("half_a_plug_in")(Callback)
ops.register_preset("no_such_point", paper="-", year=2026)
"""


def test_a_plug_in_that_fails_leaves_nothing_behind(tmp_path: Path, ablate: Callable) -> None:
    from ablate import callbacks, plugins

    (tmp_path / "half_a_plug_in.py").write_text(HALF)
    (tmp_path / "conf").mkdir()
    done = ablate("train", f"infra.plugins={tmp_path}/half_a_plug_in.py", "op=lsa")
    assert (done.code, "has no conf/op/no_such_point.yaml" in done.err) == (2, True)
    assert "half_a_plug_in" not in callbacks.names()
    assert tmp_path / "conf" not in plugins.conf_dirs()
    assert not (tmp_path / "config").exists()
    assert not (tmp_path / "runs").exists()


def test_a_callback_and_a_metric_are_refused_at_registration() -> None:
    from ablate import callbacks, data, hosts, tasks
    from ablate.errors import UserError

    with pytest.raises(UserError, match="it has no method on_step or on_epoch or on_end"):
        callbacks.register("empty")(int)
    with pytest.raises(UserError, match="metric 'top1' is there already"):
        tasks.register_metric("top1")(lambda logits, labels: 0.0)
    with pytest.raises(UserError, match="cannot be added to task='captions'"):
        tasks.register_metric("mine", task="captions")
    with pytest.raises(UserError, match="it has no info, augmentation, splits"):
        data.register("nothing")(int)
    with pytest.raises(UserError, match="argument `pretrained`, which is a setting of every host"):
        hosts.register("with_weights", slots=list, stages=1, image_size=(8, 8))(lambda pretrained=False: None)
    assert json.dumps(data.defaults("synthetic"))


def test_a_metric_of_segmentation_receives_the_confusion_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from ablate import tasks
    from ablate.errors import UserError
    from ablate.store import metrics
    from ablate.tasks import own

    for name in ("mean_recall", "wrong"):
        monkeypatch.setitem(metrics.OWN, name, None)  # removed afterwards
        del metrics.OWN[name]
    tasks.register_metric("mean_recall", task="segmentation", unit="%")(
        lambda table: 100 * (table.diagonal() / table.sum(1)).mean()
    )
    table = torch.tensor([[3.0, 1.0], [0.0, 4.0]], dtype=torch.float64)
    assert own.figures("segmentation", table) == {"mean_recall": 87.5}
    assert own.figures("classification", table) == {}
    assert "test_mean_recall" in metrics.of_task("segmentation").columns
    tasks.register_metric("wrong", task="segmentation")(lambda table: 1 / 0)
    with pytest.raises(UserError, match=r"metric 'wrong' fails: ZeroDivisionError: .*test_plugins.py:"):
        own.figures("segmentation", table)


def test_a_metric_of_detection_receives_objects_and_detections(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from tests.tasks.test_dense_runs import tiny

    from ablate import tasks
    from ablate.store import metrics
    from ablate.studies.trained import splits
    from ablate.training.loop import build_model

    monkeypatch.setitem(metrics.OWN, "objects", None)  # removed afterwards
    del metrics.OWN["objects"]
    seen: list[int] = []

    def objects(images: list) -> float:
        seen.append(len(images))
        assert all(len(image.boxes) == len(image.scores) == len(image.classes) for image in images)
        return sum(len(image.truth.boxes) for image in images) / len(images)

    tasks.register_metric("objects", task="detection", higher=False)(objects)
    config = tiny("detection")
    test = splits(config, 4).test
    precision = torch.autocast("cpu", enabled=False)
    found = tasks.get("detection").evaluate(build_model(config), test, precision).metrics
    assert seen == [test.samples]
    assert 1 <= found["objects"] <= 4  # of a scene
    assert "test_objects" in metrics.of_task("detection").columns
