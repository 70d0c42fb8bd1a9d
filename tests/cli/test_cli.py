"""The command line as a user types it, end to end and with every mistake."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from ablate.execution.claim import living_holder
from ablate.store.files import read_json, write_json
from ablate.store.folder import PRUNED, RunFolder

TINY = ("recipe=debug", "data=synthetic")
LONG = ("recipe=debug", "data=synthetic", "recipe.epochs=100000", "infra.tracking=none")
COMMAND = [sys.executable, "-m", "ablate"]


def folders(root: Path) -> list[RunFolder]:
    return [RunFolder(path.parent) for path in sorted(root.glob("runs/*/config.yaml"))]


def test_a_study_from_sweep_to_report(ablate: Callable, tmp_path: Path) -> None:
    sweep = ("train", "-m", "op=lsa,dwconv", "seed=0,1", *TINY, "study.name=small", "hydra/launcher=local")
    first = ablate(*sweep)
    assert first.code == 0, first.err
    assert "small: 4 finished" in first.err
    assert "next: ablate report small" in first.err
    again = ablate(*sweep)
    assert "4 finished before" in again.err
    more = ablate("train", "-m", "op=lsa,dwconv", "seed=2", *TINY, "study.name=small")
    assert more.code == 0, more.err
    status = ablate("status", "small")
    assert "6 finished" in status.out
    collected = ablate("collect", "small")
    frame = pd.read_csv(collected.out.split()[-1])
    assert list(frame["condition"]) == ["lsa", "lsa", "dwconv", "dwconv", "lsa", "dwconv"]
    assert (frame["state"] == "finished").all()
    report = ablate("report", "small", "--output", "page")
    assert report.code == 0, report.err
    assert "baseline" in report.out
    assert report.out.splitlines()[-2] == "page/index.html"
    assert (tmp_path / "page" / "index.html").stat().st_size > 10_000
    drawn = {path.name for path in (tmp_path / "page").glob("*.png")}
    names = ("differences", "pairs", "confidence", "accuracy_macs", "by_class", "gained")
    names += ("learning_curves", "all_curves")
    assert drawn == {f"{name}.png" for name in names}
    assert "Gained" in (tmp_path / "page" / "images.md").read_text()  # runs kept their predictions
    unpaired = ablate("report", "small", "--unpaired", "--output", "groups")
    assert "UNPAIRED as requested" in unpaired.out
    for folder, paired in (("page", True), ("groups", False)):
        page = (tmp_path / folder / "index.html").read_text(encoding="utf-8")
        assert ("The sign-flip test asks" in page, "a permutation test, which asks" in page) == (
            paired,
            not paired,
        )


def test_a_look_at_a_strided_operator(ablate: Callable, tmp_path: Path) -> None:
    trained = ablate("train", "op=involution", "host=resnet_micro", *TINY, "recipe.epochs=1")
    assert trained.code == 0, trained.err
    (folder,) = folders(tmp_path)
    looked = ablate("look", folder.signature[:6], "--images", "2", "--at", "0.9", "0.9")
    assert looked.code == 0, looked.err
    assert "of 10 maps are drawn" in looked.err
    assert {path.suffix for path in (folder.path / "look").iterdir()} == {".svg", ".png"}
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, size in (("a.png", (40, 90)), ("b.jpg", (7, 5))):
        Image.new("L", size, 99).save(photos / name)
    of_mine = ablate("look", folder.signature[:6], "--images", str(photos))
    assert of_mine.code == 0, of_mine.err
    assert [line.split(": class ")[0] for line in of_mine.out.splitlines()[:2]] == [
        str(photos / "a.png"),
        str(photos / "b.jpg"),
    ]
    missing = ablate("look", folder.signature[:6], "--images", "photo")
    assert missing.code == 2
    assert "no folder or image photo" in missing.err
    nowhere = ablate("look", folder.signature[:6], "--at", "1", "0")
    assert nowhere.code == 2
    assert "less than 1" in nowhere.err


def test_a_search_records_a_trial_that_fails_and_continues(ablate: Callable, tmp_path: Path) -> None:
    search = (
        *("train", "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "op=dwconv", *TINY),
        *("recipe.epochs=1", "data.train=64", "recipe.learning_rate=choice(1e30,1e-3)"),
        *("recipe.clip_grad=null", "hydra.sweeper.n_jobs=1"),
    )
    nameless = ablate(*search)
    assert nameless.code == 2
    assert "add study.name=…" in nameless.err
    assert not (tmp_path / "runs").exists()
    done = ablate(*search, "study.name=search", "hydra.sweeper.n_trials=2")
    assert done.code == 0, done.err
    assert "2 trials, 1 failed; best validation_top1" in done.err
    found = read_json(tmp_path / "runs/studies/search/search.json")
    assert found["best_params"] == {"recipe.learning_rate": "0.001"}
    assert "1 finished, 1 failed" in ablate("status", "search").out
    again = re.search(r"ablate (train -m .*) seed=0,1,2", done.err)[1]
    assert "recipe.learning_rate=0.001" in again.split()


def test_a_search_prunes_a_run_of_two_processes_while_it_is_trained(ablate: Callable, tmp_path: Path) -> None:
    found = ablate(
        *("train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "study.name=s", "op=dwconv"),
        *("hydra/sweeper/pruner=threshold", "hydra.sweeper.pruner.lower=101"),
        *("recipe.learning_rate=choice(1e-3)", *LONG, "infra.devices=2"),
    )
    assert found.code == 2
    assert "no trial of the search has a result (1 trial, 1 pruned)" in found.err
    (folder,) = folders(tmp_path)
    assert folder.state() == PRUNED
    assert "validation_top1" in folder.status()["error"]
    assert 0 < folder.metrics()[-1]["epoch"] < 100000
    assert folder.checkpoint_path.exists()
    assert "1 pruned" in ablate("status", "s").out
    assert "no run" in ablate("retry", "s").out


def test_axes_compose_on_any_preset(ablate: Callable, tmp_path: Path) -> None:
    sweep = ablate(
        *("train", "-m", "op=lsa", "op/region=window,neighborhood", "op/norm=softmax,identity"),
        *(
            "op.channel.heads=1x,C",
            *TINY,
            "recipe.epochs=1",
            "data.train=32",
            "data.validation=16",
            "data.test=16",
        ),
    )
    assert sweep.code == 0, sweep.err
    name = re.search(r"ablate report (\S+)", sweep.err)[1]
    manifest = read_json(tmp_path / "runs" / "studies" / name / "manifest.json")
    assert manifest["factors"] == ["op/region", "op/norm", "op.channel.heads"]
    assert len(manifest["runs"]) == 8
    assert len({run["signature"] for run in manifest["runs"]}) == 8
    assert ablate("report", name).code == 0


def test_a_study_grows_in_portions_and_shrinks_by_a_verb(ablate: Callable, tmp_path: Path) -> None:
    common = (*TINY, "recipe.epochs=1", "data.train=32", "study.name=one", "study.baseline={op:lsa}")
    assert ablate("train", "-m", "op=lsa,dwconv", *common).code == 0
    slide = ablate("train", "-m", "op=lsa,slide", *common, "recipe.weight_decay=0")
    assert "recipe.weight_decay is one of its factors now" in slide.err
    report = ablate("report", "one")
    assert report.code == 0, report.err
    assert len(pd.read_csv(ablate("collect", "one").out.split()[-1])) == 4
    advised = re.search(r"ablate (study remove one \S+)", slide.err)[1]
    removed = ablate(*advised.split())
    assert "removed 2 runs, 2 are left" in removed.out, removed.err
    assert len(pd.read_csv(ablate("collect", "one").out.split()[-1])) == 2
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 4
    nowhere = ablate("train", "-m", "op=lsa,dwconv", *TINY, "study.name=two", "study.baseline={op:elsa}")
    assert nowhere.code == 2
    assert "matches no condition" in nowhere.err
    assert not (tmp_path / "runs/studies/two").exists()


def test_one_failure_does_not_stop_the_rest_and_is_retried_when_asked(
    ablate: Callable, tmp_path: Path
) -> None:
    sweep = (
        "train",
        "-m",
        "recipe.learning_rate=1e30,1e-3",
        *TINY,
        "recipe.clip_grad=null",
        "recipe.epochs=3",
    )
    for launcher in ("inline", "local"):
        done = ablate(*sweep, f"hydra/launcher={launcher}", f"infra.runs_dir={launcher}", "study.name=risky")
        assert done.code == 1
        assert "1 failed" in done.err
        assert "1 finished" in done.err
        assert "error.txt" in done.err
        status = ablate("status", "risky", "--runs-dir", launcher)
        assert "NonFiniteLossError" in status.out
        assert "ablate retry risky" in status.out
        assert len(pd.read_csv(ablate("collect", "risky", "--runs-dir", launcher).out.split()[-1])) == 2
    again = ablate(*sweep, "infra.runs_dir=inline", "study.name=risky")
    assert again.code == 1
    assert "failed before" in again.err
    retried = ablate(*sweep, "infra.runs_dir=inline", "study.name=risky", "infra.retry_failed=true")
    assert "1 failed" in retried.err
    (failed,) = [f for f in map(RunFolder, (tmp_path / "inline").iterdir()) if f.state() == "failed"]
    assert failed.status()["attempt"] == 2


REFUSED = {
    "operator": (["op=elssa"], "did you mean 'elsa'"),
    "study in a folder": (["study=operators/swim"], "did you mean 'operators/swin'"),
    "step of a walk": (["variant=lsa_to_elsa/elssa"], "did you mean 'lsa_to_elsa/elsa'"),
    "path": (["study.paths={walk:lsa}"], "from the first to the last"),
    "sweep over nothing": (["-m", "op=glob(none*)"], "matches nothing"),
    "level of an axis": (["op/norm=softmix"], "did you mean 'softmax'"),
    "setting": (["op.region.sizes=3"], "did you mean 'size'"),
    "recipe setting": (["recipe.epoch=3"], "did you mean 'epochs'"),
    "group": (["ops=lsa"], "did you mean 'op'"),
    "syntax": (["op=[lsa"], "--help"),
    "heads": (["op.channel.heads=5"], "possible numbers of heads"),
    "even kernel": (["op=dwconv", "op.region.kernel=6"], "use 5 or 7"),
    "window": (["op.region.size=15"], "larger than the map of 14×14"),
    "λ": (["op.channel.ghost_lambda=0.5"], "choose λ = 0"),
    "combination in a sweep": (["-m", "op=elsa,lsa", "op/region=window"], "op=elsa"),
    "augmentation of another kind of data": (["recipe=swin_imagenet"], "auto_augment"),
    "seed": (["seed=first"], "whole number"),
    "device": (["infra.device=gpu"], "use auto, cpu, cuda"),
    "tracking": (["infra.tracking=tensorboard"], "wandb_offline"),
    "stage": (["host.stages=[3]"], "count from 1 to 2"),
    "study name": (["study.name=../up"], "letters"),
    "metric": (["study.metric=test_top"], "validation_top1"),
    "baseline": (["-m", "op=lsa,elsa", "study.baseline={ops: lsa}"], "did you mean 'op'"),
    "number": (["recipe.learning_rate=nan"], "recipe.learning_rate=nan is not a finite number"),
    "setting at the top": (["+bacth_size=8"], "did you mean 'recipe.batch_size'"),
    "setting of a host": (["+host.drop_path=1.0"], "did you mean 'drop_path_rate'"),
    "rate": (["host.drop_path_rate=-0.1"], "from 0 to below 1"),
    "one class": (["data=synthetic", "data.num_classes=1"], "at least 2"),
    "batch": (["recipe.batch_size=100000"], "more than the 10000 training images"),
    "no group": (["op=null"], "a group cannot be null"),
    "group taken away": (["~op"], "a run has no op"),
    "seed taken away": (["~seed"], "a run has no seed"),
    "environment": (["recipe.learning_rate=${oc.env:NOPE}"], "export NOPE"),
    "interpolation": (["study.name=${study.name}"], "refers to itself"),
    "study in the files of another": (["study.name=a/report"], "a study's own files"),
    "study without a part": (["study.name=a//b"], "begins with a letter or digit"),
    "long study name": ([f"study.name={300 * 'x'}"], "at most 100"),
    "condition of a path": (["-m", "op=lsa,elsa", "study.paths={walk: [lsa, else]}"], "did you mean 'elsa'"),
    "long warm-up": (["recipe.warmup_epochs=5", "recipe.epochs=2"], "recipe.epochs=2"),
    "dilation beyond the map": (["op=na", "op.region.dilation=50"], "does not fit on the map of 14×14"),
    "schedule": (["recipe.schedule=plateau"], "cosine"),
    "option of the optimiser": (["recipe.optimizer=sgd", "+recipe.optimizer_options.beta=1"], "refused"),
    "factors": (["study.factors=op"], "expected a list"),
    "folder of runs": (["infra.runs_dir=null"], "infra.runs_dir=None has the wrong type"),
    "workers": (["infra.launcher.workers=0"], "1 or more"),
    "dataset that is missing": (["data=cifar10", "infra.data_root=nowhere"], "infra.download=true"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_way_out_and_nothing_left_behind(case: str, ablate: Callable, tmp_path: Path) -> None:
    arguments, expected = REFUSED[case]
    done = ablate("train", *arguments)
    assert done.code == 2
    assert expected in done.err
    assert "Traceback" not in done.err
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "multirun.yaml"]
    assert not left


FILES = {
    "tab": (b"study:\n\tname: x\n", "line 3: found character"),
    "duplicate": (b"study:\n  name: x\n  name: y\n", "line 4: found duplicate key"),
    "tag": (b"study:\n  name: !!python/object:os.system x\n", "tags (!name) are not read"),
    "loop": (b"recipe:\n  epochs: ${recipe.epochs}\n", "refers to itself"),
    "bytes": (b"study:\n  name: \xff\xfe\n", "line 3: bytes that are not UTF-8"),
    "open bracket": (b"study: [\n", "line 3: expected the node content"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_the_user_is_refused_by_name_and_line(case: str, ablate: Callable, tmp_path: Path) -> None:
    content, expected = FILES[case]
    (tmp_path / "mine" / "study").mkdir(parents=True)
    path = tmp_path / "mine" / "study" / "own.yaml"
    path.write_bytes(b"# @package _global_\n" + content)
    done = ablate("train", f"hydra.searchpath=[file://{tmp_path}/mine]", "study=own")
    assert done.code == 2
    assert expected in done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) == 2
    assert str(path) in done.err or case == "loop"
    assert not (tmp_path / "runs").exists()


def test_other_verbs_say_what_is_missing(ablate: Callable, tmp_path: Path) -> None:
    for verb in ("status", "collect", "report"):
        done = ablate(verb, "nothing")
        assert done.code == 2
        assert "ablate train" in done.err


def test_doctor_and_ops_tell_what_there_is(ablate: Callable) -> None:
    told = ablate("doctor").out
    for word in ("PyTorch", "CUDA", "Triton", "Numba", "SLURM", "W&B", "fashion_mini", "cifar10"):
        assert word in told
    table = ablate("ops").out
    assert all(name in table for name in ("lsa", "dwconv", "involution", "elsa_equation"))


@pytest.mark.parametrize("verb", ["train", "status", "collect", "report", "ops", "doctor"])
def test_help_shows_an_example(verb: str, ablate: Callable) -> None:
    done = ablate(verb, "--help")
    assert done.code == 0
    assert f"ablate {verb} " in done.out
    assert "xample" in done.out


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A training process that has finished at least one epoch."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "train", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        deadline = time.monotonic() + 300  # a machine may be busy: a guard against waiting for ever
        while not any(folder.checkpoint_path.exists() for folder in folders(tmp_path)):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline, "no checkpoint after 300 s"
            time.sleep(0.1)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("launcher", ["inline", "local"])
def test_ctrl_c_is_recorded_and_the_next_start_goes_on(
    launcher: str, running: Callable, ablate: Callable, tmp_path: Path
) -> None:
    sweep = ("-m", "seed=0,1", *LONG, f"hydra/launcher={launcher}", "infra.launcher.workers=1")
    process = running(*sweep)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command resumes" in err
    first = next(folder for folder in folders(tmp_path) if folder.checkpoint_path.exists())
    assert first.state() == "interrupted"
    epochs = len(first.metrics())
    again = running(*sweep)
    deadline = time.monotonic() + 240  # on a busy machine a worker takes a minute to start
    while first.status().get("epoch", 0) <= epochs and time.monotonic() < deadline:
        time.sleep(0.1)
    again.send_signal(signal.SIGTERM)
    again.wait(60)
    assert first.state() == "interrupted"
    assert first.status()["attempt"] == 2
    assert [line["epoch"] for line in first.metrics()] == list(range(1, len(first.metrics()) + 1))
    assert len(first.metrics()) > epochs


def test_a_killed_run_is_seen_as_lost_and_taken_over(
    running: Callable, ablate: Callable, tmp_path: Path
) -> None:
    process = running(*LONG, "study.name=killed")
    (folder,) = folders(tmp_path)
    left_alone = ablate("train", *LONG, "study.name=killed")
    assert "1 running elsewhere" in left_alone.err
    process.kill()
    process.wait()
    assert folder.state() == "running"
    assert "1 lost" in ablate("status", "killed").out
    running(*LONG, "study.name=killed")
    deadline = time.monotonic() + 240
    while folder.status()["attempt"] < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert folder.status()["attempt"] == 2


def test_workers_do_not_outlive_a_launcher_that_is_killed(running: Callable, tmp_path: Path) -> None:
    process = running("-m", "seed=0,1", *LONG, "hydra/launcher=local", "infra.launcher.workers=1")
    first = next(folder for folder in folders(tmp_path) if folder.checkpoint_path.exists())
    process.kill()
    deadline = time.monotonic() + 30
    while (first.state() == "running" or living_holder(first.path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert first.state() == "interrupted"
    assert living_holder(first.path) is None


def test_a_worker_that_dies_without_a_word_is_a_failure_of_its_run_only(
    ablate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fatal.py").write_text(
        "import os\n"
        "from torch import nn\n"
        "from ablate import ops\n"
        "@ops.register('fatal', paper='-', year=2026, channel_setting='-', spatial_processing='-')\n"
        "class Fatal(nn.Module):\n"
        "    def __init__(self, dim, deadly: bool = False):\n"
        "        super().__init__()\n"
        "        self.deadly = deadly\n"
        "    def forward(self, x):\n"
        "        return os._exit(7) if self.deadly and not x.is_meta else x\n"
    )
    code = "import sys; from ablate.cli import main; main(sys.argv[1:])"
    arguments = [
        "train",
        "-m",
        "op=fatal",
        "op.deadly=true,false",
        *TINY,
        "hydra/launcher=local",
        "infra.tracking=none",
    ]
    environment = {**os.environ, "ABLATE_OPERATORS": "fatal", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "infra.launcher.workers=1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "exit code 7" in done.stderr
    assert sorted(folder.state() for folder in folders(tmp_path)) == ["failed", "finished"]


def test_a_claim_of_another_process_is_respected(ablate: Callable, tmp_path: Path) -> None:
    assert ablate("train", *TINY, "recipe.epochs=1").code == 0
    (folder,) = folders(tmp_path)
    folder.result_path.unlink()
    write_json(folder.path / "claim.json", {"host": "elsewhere", "pid": 1, "born": "1"})
    done = ablate("train", *TINY, "recipe.epochs=1")
    assert "1 running elsewhere" in done.err
    assert folder.result() is None


def test_a_run_does_not_wait_for_wandb_nor_fail_without_it(
    ablate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real client against a closed port of this machine."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    start = time.monotonic()
    done = ablate("train", *TINY, "recipe.epochs=1", "infra.tracking=wandb")
    assert done.code == 0, done.err
    assert "W&B cannot be reached" in done.err
    assert time.monotonic() - start < 60
    (folder,) = folders(tmp_path)
    assert folder.finished()
    assert list((folder.path / "wandb").glob("offline-run-*"))
    assert not any(b"0" * 40 in file.read_bytes() for file in folder.path.rglob("*") if file.is_file())


def test_light_verbs_import_neither_torch_nor_timm(ablate: Callable, tmp_path: Path) -> None:
    ablate("train", "-m", "seed=0,1", *TINY, "recipe.epochs=1", "study.name=light")
    for verb in ("status", "collect", "report"):
        code = f"import sys; from ablate.cli import main; main(['{verb}', 'light']); print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert not {"torch", "timm", "hydra"} & set(done.stdout.split())
