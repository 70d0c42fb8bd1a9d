"""Several processes for one run: the same figures as one, to rounding, and the same faults survived."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests import command
from torch import nn

from ablate.compose.request import Request
from ablate.configuration import conf_dir
from ablate.data import Shard
from ablate.errors import UserError
from ablate.execution.place import Place
from ablate.launch.alone import check_alone
from ablate.launch.submit import submit
from ablate.results import predictions
from ablate.store.folder import RunFolder
from ablate.training import checkpoint
from ablate.training.distributed import CPU, Group, SharedBatchNorm

TRAIN = ("recipe=debug", "data=synthetic", "infra.tracking=none", "infra.device=cpu")
RETRY = "infra.retry_failed=true"
# All that draws for a batch or looks at the whole of it: order, crops, flips, erasing, mixup, cutmix, drop
# path, batch norm; and what has a state beside the weights.
EVERYTHING = (
    "recipe.augment.crop_padding=2",
    "recipe.augment.horizontal_flip=0.5",
    "recipe.augment.random_erasing=0.5",
    "recipe.mixup=0.8",
    "recipe.cutmix=1.0",
    "recipe.ema_decay=0.9",
    "recipe.accumulate=2",
    "recipe.precision=float32",
    "data.validation=600",  # three batches of 250: two for one process, one for the other
    "host.drop_path_rate=0.2",
    "data.train=128",
)


def train(folder: Path, *overrides: str, launcher: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    flags = [override for override in overrides if override.startswith("-")]
    settings = [override for override in overrides if override not in flags]
    arguments = ["train", *flags, *TRAIN, f"infra.runs_dir={folder}", *settings]
    if not launcher:
        return command.run(*arguments, folder=folder.parent)
    return subprocess.run(
        [*launcher, "ablate", *arguments], capture_output=True, text=True, timeout=300, cwd=folder.parent
    )


def only(folder: Path) -> RunFolder:
    (path,) = [path for path in folder.iterdir() if (path / "status.json").exists()]
    return RunFolder(path)


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    found, notes = checkpoint.load(folder.checkpoint_path)
    assert found is not None
    assert not notes
    return found.model


def assert_same_bits(one: RunFolder, other: RunFolder) -> None:
    assert one.metrics_path.read_bytes() == other.metrics_path.read_bytes()
    mine, theirs = weights(one), weights(other)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_two_processes_train_as_one_to_rounding(tmp_path: Path) -> None:
    choice = ("op=involution", "host=resnet_micro")  # batch norms of the operator and of the host
    single = train(tmp_path / "one", *choice, *EVERYTHING)
    assert single.returncode == 0, single.stderr
    shared = train(tmp_path / "two", *choice, *EVERYTHING, "infra.devices=2")
    assert shared.returncode == 0, shared.stderr
    one, two = only(tmp_path / "one"), only(tmp_path / "two")
    assert one.path.name == two.path.name  # where a run is computed is no part of what it is
    for mine, theirs in zip(one.metrics(), two.metrics(), strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("train_loss", "validation_loss"):
            assert mine[name] == pytest.approx(theirs[name], rel=2e-4), name
    assert one.result()["macs"] == two.result()["macs"]
    for folder in (one, two):  # in the order of the split, whoever computed a batch
        kept = predictions.read(folder.predictions_path)
        assert 100 * kept.predictions.correct.mean() == pytest.approx(folder.result()["test_top1"], abs=1e-3)
    labels = [predictions.read(folder.predictions_path).predictions.label for folder in (one, two)]
    np.testing.assert_array_equal(*labels)
    mine, theirs = weights(one), weights(two)
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=2e-2, atol=2e-3)


def test_torchrun_runs_a_sweep_and_gives_the_same_bits(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    sweep = train(tmp_path / "sweep", "-m", "op=lsa", "seed=0,1", "recipe.epochs=1", launcher=torchrun)
    assert sweep.returncode == 0, sweep.stderr
    assert "2 finished" in sweep.stderr
    own = train(tmp_path / "own", "op=lsa", "seed=1", "recipe.epochs=1", "infra.devices=2")
    assert own.returncode == 0, own.stderr
    signature = only(tmp_path / "own").signature
    assert_same_bits(RunFolder(tmp_path / "sweep" / signature), only(tmp_path / "own"))


def test_torchrun_with_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Place(0, 2, 0, 2, "localhost", 1).variables().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="leave hydra/launcher out"):
        check_alone("local")


def test_faults_are_named_and_the_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    overrides = ("op=lsa", "infra.devices=2", "data.train=512")
    folder = tmp_path / "faulty"
    folder.mkdir()

    broken = _struck(folder, _kill_the_other, *overrides)
    assert broken.returncode == 1
    told = " ".join(broken.stderr.split())
    assert "process 1 of those that computed the run died (killed by SIGKILL)" in told
    assert only(folder).state() == "failed"

    stopped = _struck(folder, lambda first: os.kill(first, signal.SIGTERM), *overrides, RETRY)
    assert stopped.returncode == 130, stopped.stderr
    assert only(folder).state() == "interrupted"

    again = train(folder, *overrides)
    assert again.returncode == 0, again.stderr
    assert only(folder).status()["attempt"] == 3
    whole = train(tmp_path / "whole", *overrides)
    assert whole.returncode == 0, whole.stderr
    assert_same_bits(only(folder), only(tmp_path / "whole"))


def _struck(folder: Path, strike: Callable[[int], None], *overrides: str) -> subprocess.CompletedProcess[str]:
    """Train, and strike the first process once it has written a checkpoint."""
    before = _checkpoints(folder)

    def watch() -> None:
        _until(lambda: any(time != before.get(path) for path, time in _checkpoints(folder).items()))
        strike(only(folder).status()["pid"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    done = train(folder, *overrides, "infra.checkpoint_minutes=0.001")
    watcher.join()
    return done


def _checkpoints(folder: Path) -> dict[Path, int]:
    """Times of change; a checkpoint that is just being replaced by the next one has none."""
    times = {}
    for path in folder.glob("*/checkpoint.pt"):
        with suppress(FileNotFoundError):
            times[path] = path.stat().st_mtime_ns
    return times


def _kill_the_other(first: int) -> None:
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    (other,) = [int(pid) for pid in children if b"follower" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(other, signal.SIGKILL)


def _until(happened: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("infra.devices=3",), "3 processes cannot share 16 images"),
        (("infra.devices=2", "infra.launcher.nodes=8", "recipe.mixup=0.5"), "mix images in pairs"),
        (("infra.devices=0",), "infra.devices=0"),
        (("infra.devices=2", "infra.device=cuda:0"), "is one card"),
        (("infra.devices=2", "infra.launcher.gpus=1"), "infra.launcher.gpus=1"),
        (("infra.launcher.nodes=2", "infra.launcher.side_by_side=2"), "on 2 machines"),
    ],
)
def test_what_cannot_be_shared_is_refused(overrides: tuple[str, ...], told: str, tmp_path: Path) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(
            "train", ["recipe=debug", "data=synthetic", f"infra.runs_dir={tmp_path}/runs", *overrides]
        )
    plain: Any = OmegaConf.to_container(config, resolve=True)
    with pytest.raises(UserError, match=told):
        submit([Request(plain, {})], "ablate train", print)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("images", "world"), [(16, 2), (12, 3), (6, 2), (9, 3), (8, 1), (4, 4)])
def test_shares_are_equal_complete_and_closed_under_mirroring(images: int, world: int) -> None:
    shares = [Shard(rank, world).rows(images) for rank in range(world)]
    assert sorted(row for rows in shares for row in rows) == list(range(images))
    assert {len(rows) for rows in shares} == {images // world}
    if (
        images // world % 2 == 0
    ):  # what mixup wants: the mirror image of a row is its mirror image in the share
        for rows in shares:
            assert [images - 1 - row for row in rows] == rows[::-1]
    batches = [number for rank in range(world) for number in Shard(rank, world).batches(images)]
    assert sorted(batches) == list(range(images))


def test_pytorch_keeps_its_threads_when_the_loops_start() -> None:
    program = """
import torch
from tests import command
from ablate.ops import kernels
torch.set_num_threads(1)
kernels.aggregate(torch.randn(1, 8, 8, 16), torch.randn(1, 8, 8, 1, 9), kernel=3, border="zero")
assert torch.get_num_threads() == 1, torch.get_num_threads()
"""
    variables = {**os.environ, "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_shared_batch_norm_evaluates_as_the_plain_one() -> None:
    group = Group(world_size=2, local_world_size=2, device=CPU)
    network = group.share(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.1)))
    assert isinstance(network[1], SharedBatchNorm)
    torch.testing.assert_close(
        network.eval()(torch.ones(2, 3, 4, 4)),
        nn.Sequential(network[0], _plain(network[1])).eval()(torch.ones(2, 3, 4, 4)),
    )


def _plain(norm: nn.Module) -> nn.Module:
    found = nn.BatchNorm2d(norm.num_features)
    found.load_state_dict(norm.state_dict())
    return found


BUFFERS = """
import sys, torch, torch.distributed as dist
from pathlib import Path
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from ablate.compose.request import Request
from ablate.configuration import conf_dir
from ablate.store.folder import RunFolder
from ablate.training.context import RunContext
from ablate.training.distributed import Group, joined
from ablate.training.loop import Training
from ablate.training.progress import Silent

rank, port, folder, *overrides = sys.argv[1:]
store = dist.TCPStore("127.0.0.1", int(port), 2, is_master=rank == "0")
with joined(Group(int(rank), 2, int(rank), 2), store) as group:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", overrides), resolve=True)
    training = Training(RunContext(config, RunFolder(Path(folder)), Silent(), group))
    training.run()
    norms = 0
    for name, value in training.model.named_buffers():
        here = [torch.empty_like(value) for _ in range(2)]
        dist.all_gather(here, value.contiguous())
        assert torch.equal(*here), name
        norms += name.endswith("num_batches_tracked") and int(value) == training.step
    assert norms > 5
"""


def test_every_process_has_the_same_buffers_without_a_broadcast(tmp_path: Path) -> None:
    """Running statistics of batch norms, of the host's and of operators'."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    overrides = (
        *TRAIN,
        "op=lesa",
        "host=resnet_micro",
        "data.train=32",
        "recipe.epochs=1",
        "infra.threads=1",
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUFFERS, str(rank), str(port), str(tmp_path), *overrides],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
