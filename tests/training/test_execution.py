"""Settings that change how a run is executed: resume stays exact and pairs stay pairs with each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests.training.interrupted import StopAfter
from timm.layers import DropPath
from torch import nn

from ablate import ops
from ablate.configuration import conf_dir
from ablate.data.tensor_loader import TrainingTensorLoader
from ablate.execution import pruning
from ablate.execution.execute import execute
from ablate.execution.outcome import Outcome
from ablate.launch.freezing import READY, freeze
from ablate.store.files import Guard
from ablate.store.folder import PENDING, PRUNED, RunFolder
from ablate.store.identity import signature
from ablate.training import checkpoint, loop, network, optimization
from ablate.training.context import RunContext
from ablate.training.progress import Silent
from ablate.training.recipe import read as read_recipe

FUSED = "+recipe.optimizer_options.fused=true"
WITH = {
    "channels_last": ("infra.memory_format=channels_last",),
    "fused": (FUSED,),
    "compile": ("infra.compile=true",),
    "all": ("infra.memory_format=channels_last", FUSED, "infra.compile=true"),
}
# all that has a state: NumPy's generator (mixup), PyTorch's (drop path), averaged weights, accumulation
STATE = ("recipe.mixup=0.8", "recipe.ema_decay=0.9", "host.drop_path_rate=0.2", "recipe.accumulate=2")

TINY = ("op=dwconv", "data.train=64", "data.num_classes=3", "data.channels=1")  # data of `Tiny` below


def configure(*overrides: str) -> dict[str, Any]:
    fixed = ["recipe=debug", "data=synthetic", "infra.tracking=none", "infra.device=cpu", "infra.threads=1"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [*fixed, *overrides])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


def run(config: Mapping[str, Any], path: Path, reporter: Silent | None = None) -> RunFolder:
    path.mkdir(exist_ok=True)
    execute(path, config, reporter or Silent())
    return RunFolder(path)


def saved(folder: RunFolder) -> checkpoint.Checkpoint:
    found, notes = checkpoint.load(folder.checkpoint_path)
    assert found is not None
    assert not notes
    return found


class Tiny(nn.Module):
    """The smallest host, which compiles in seconds: convolution, batch norm, a slot with drop path."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 4, stride=4)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)
        self.drop_path = DropPath(0.3)
        self.slot = ops.create(op, 8, heads=2, resolution=(7, 7))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(images)).permute(0, 2, 3, 1)
        return self.head((x + self.drop_path(self.slot(x))).mean((1, 2)))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(config: Mapping[str, Any]) -> nn.Module:
        torch.manual_seed(config["seed"])
        return Tiny(config["op"]["name"])

    monkeypatch.setattr(loop, "build_model", build)


@pytest.mark.parametrize("setting", WITH)
@pytest.mark.usefixtures("tiny")
def test_a_run_interrupted_within_an_epoch_ends_with_the_same_bits(setting: str, tmp_path: Path) -> None:
    overrides = (
        "op=dwconv",
        "data.train=64",
        "data.num_classes=3",
        "data.channels=1",
        *STATE,
        *WITH[setting],
    )
    config = configure(*overrides)
    config["infra"]["checkpoint_minutes"] = 1e-9  # after every step
    whole = run(config, tmp_path / "whole")
    assert whole.finished(), whole.error()
    steps = whole.metrics()[0]["step"]
    assert steps == 4
    for stop in (2, steps + 3):
        path = tmp_path / f"stopped_{stop}"
        with pytest.raises(KeyboardInterrupt):
            run(config, path, StopAfter(stop))
        assert saved(RunFolder(path)).under_way is not None  # within an epoch
        again = run(config, path)
        assert again.metrics_path.read_bytes() == whole.metrics_path.read_bytes()
        for part in ("model", "ema", "best"):
            mine, theirs = getattr(saved(again), part), getattr(saved(whole), part)
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine), part


@pytest.mark.usefixtures("tiny")
def test_a_pruned_run_can_go_on_to_the_same_bits(tmp_path: Path) -> None:
    config = configure(*TINY, *STATE)
    whole = run(config, tmp_path / "whole")
    folder = RunFolder(tmp_path / signature(config))
    folder.path.mkdir()
    pruning.request(folder, "pruned by the search: 1.0 at epoch 1")
    assert execute(folder.path, config, Silent()) == Outcome(PRUNED, "pruned by the search: 1.0 at epoch 1")
    assert folder.state() == PRUNED
    assert saved(folder).step == 0
    assert freeze(folder, config, queued=False, retry=False) == READY
    assert folder.state() == PENDING
    run(config, folder.path)
    assert folder.finished()
    assert folder.metrics_path.read_bytes() == whole.metrics_path.read_bytes()


@pytest.mark.parametrize("setting", ["channels_last", "compile"])
@pytest.mark.usefixtures("tiny")
def test_only_rounding_differs_from_the_default(setting: str, tmp_path: Path) -> None:
    fixed = (*TINY, *STATE)
    default = run(configure(*fixed), tmp_path / "default")
    other = run(configure(*fixed, *WITH[setting]), tmp_path / setting)
    for mine, theirs in zip(other.metrics(), default.metrics(), strict=True):
        # the same masks of drop path: others would move the loss in its second digit
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
    assert list(saved(other).model) == list(saved(default).model)


@pytest.mark.parametrize("setting", WITH)
def test_pairs_stay_pairs(setting: str, tmp_path: Path) -> None:
    pair = []
    for op in ("lsa", "dwconv"):
        config = configure(f"op={op}", "host=resnet_micro", "seed=5", *WITH[setting])
        training = loop.Training(RunContext(config, RunFolder(tmp_path), Silent()))
        assert training.network is training.model
        pair.append(training.model.state_dict())
    shared = [name for name in pair[0] if name in pair[1] and ".conv2." not in name]
    assert len(shared) > 20
    assert all(torch.equal(pair[0][name], pair[1][name]) for name in shared)
    plain = loop.build_model(configure("op=lsa", "host=resnet_micro", "seed=5")).state_dict()
    assert list(plain) == list(pair[0])
    assert all(torch.equal(plain[name], pair[0][name]) for name in plain)


def test_channels_last_reaches_weights_and_optimizer_state(tmp_path: Path) -> None:
    overrides = ("op=lsa", "host=resnet_micro", "recipe.epochs=1", "data.train=32")
    config = configure(*overrides, *WITH["channels_last"])
    training = loop.Training(RunContext(config, RunFolder(tmp_path), Silent()))
    training.run()
    found = [m.weight for m in training.model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
    assert found
    for weight in found:
        for tensor in (weight, training.optimizer.state[weight]["exp_avg"]):
            assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert training.numerics["memory_format"] == "channels_last"


def test_auto_is_channels_last_for_convolutional_hosts_on_cuda_only() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert network.memory_format("auto", "resnet50", cuda) == torch.channels_last
    assert network.memory_format("auto", "convnext_tiny", cuda) == torch.channels_last
    assert network.memory_format("auto", "swin_tiny", cuda) == torch.contiguous_format
    assert network.memory_format("auto", "resnet50", cpu) == torch.contiguous_format
    assert network.memory_format("channels_last", "swin_tiny", cpu) == torch.channels_last


@pytest.mark.parametrize(
    ("overrides", "device", "expected"),
    [
        ((), "cpu", False),
        ((), "cuda", True),
        ((FUSED,), "cpu", True),
        (("+recipe.optimizer_options.fused=false",), "cuda", False),
        (("+recipe.optimizer_options.foreach=true",), "cuda", False),
        (("recipe.optimizer=lookahead_adamw",), "cuda", True),
        (("recipe.optimizer=lamb",), "cuda", False),
    ],
)
def test_the_fused_optimizer_is_used_where_there_is_one(
    overrides: tuple[str, ...], device: str, expected: bool
) -> None:
    recipe = read_recipe(configure(*overrides)["recipe"])
    assert optimization.fused(recipe, torch.device(device)) == expected
    built = optimization.optimizer(nn.Linear(2, 2), recipe, in_one_kernel=expected)
    groups = getattr(built, "base_optimizer", built).param_groups
    assert bool(groups[0].get("fused")) == expected


@pytest.mark.usefixtures("tiny")
def test_a_run_keeps_the_optimizer_that_its_checkpoint_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that an earlier version began on a card, where fused is now the default."""
    config = configure(*TINY, *STATE)
    config["infra"]["checkpoint_minutes"] = 1e-9
    whole = run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "parts", StopAfter(2))
    monkeypatch.setattr(optimization, "fused", lambda recipe, device: True)
    again = run(config, tmp_path / "parts")
    assert again.metrics_path.read_bytes() == whole.metrics_path.read_bytes()
    assert not saved(again).optimizer["param_groups"][0].get("fused")


TrainStep = Callable[..., torch.Tensor]


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_weights_after_a_loss_that_is_not_finite_are_never_saved(
    at: int, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 1 and 3 lie within an epoch of four, 4 is its last one; a checkpoint is due after every step."""
    config = configure("op=dwconv", "data.train=64", f"recipe.precision={precision}")
    config["infra"]["checkpoint_minutes"] = 1e-9
    steps: list[int] = []
    saves: list[int] = []
    backward, save = loop.Training._backward, checkpoint.save

    def poisoned(self: loop.Training, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        steps.append(self.step + 1)
        inputs, labels = batch
        return backward(self, (inputs * float("nan") if self.step + 1 == at else inputs, labels))

    def watched(path: Path, state: checkpoint.Checkpoint, guard: Guard) -> None:
        saves.append(state.step)
        assert all(value.isfinite().all() for value in state.model.values() if value.is_floating_point())
        save(path, state, guard)

    monkeypatch.setattr(loop.Training, "_backward", poisoned)
    monkeypatch.setattr(checkpoint, "save", watched)
    folder = run(config, tmp_path / "run")
    assert f"NonFiniteLossError: loss is nan at step {at};" in folder.status()["error"]
    assert folder.state() == "failed"
    assert max(saves) == at - 1
    assert len(folder.metrics()) == (at - 1) // 4
    assert saved(folder).step == at - 1


@pytest.mark.parametrize("minutes", [10.0, 1e-9])
def test_the_loss_of_a_step_is_read_within_the_next_one(
    minutes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before it is launched; and at once where a checkpoint needs it."""
    config = configure("op=dwconv", "data.train=64", "recipe.epochs=1")
    config["infra"]["checkpoint_minutes"] = minutes
    events: list[str] = []
    step = loop.Training._train_step

    def recorded(self: loop.Training, *batches: Any) -> torch.Tensor:
        loss = step(self, *batches)
        events.append(f"launched {self.step}")
        return loss

    class Recorder(Silent):
        def stepped(self, loss: float) -> None:
            events.append(f"read {sum('read' in event for event in events) + 1}")

    monkeypatch.setattr(loop.Training, "_train_step", recorded)
    run(config, tmp_path / "run", Recorder())
    late = ["launched 1", "launched 2", "read 1", "launched 3", "read 2", "launched 4", "read 3", "read 4"]
    at_once = [f"{what} {number}" for number in range(1, 5) for what in ("launched", "read")]
    assert events == (late if minutes == 10 else at_once)


def test_a_failure_after_a_loss_that_is_not_finite_is_reported_as_that_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = loop.Training._backward

    def broken(self: loop.Training, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        if self.step == 2:
            raise RuntimeError("the weights are not finite")
        inputs, labels = batch
        return backward(self, (inputs * float("nan") if self.step == 1 else inputs, labels))

    monkeypatch.setattr(loop.Training, "_backward", broken)
    folder = run(configure("op=dwconv", "data.train=64"), tmp_path / "run")
    assert "loss is nan at step 2" in folder.status()["error"]


def test_waiting_for_data_is_measured_and_added_up_over_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = TrainingTensorLoader.epoch

    def slow(self: TrainingTensorLoader, number: int, first: int = 0) -> Iterator[Any]:
        for batch in epoch(self, number, first):
            time.sleep(0.1)
            yield batch

    monkeypatch.setattr(TrainingTensorLoader, "epoch", slow)
    config = configure("op=dwconv", "data.train=64", "host.stages=[1]")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", StopAfter(6))
    folder = run(config, tmp_path / "run")
    assert folder.finished(), folder.error()
    result = folder.result() or {}
    waited = result["data_wait"] * result["train_seconds"]
    assert 0.8 <= waited <= result["train_seconds"] <= 60  # eight batches of 0.1 s each
    for line in folder.speed():
        assert 0.4 <= line["data_wait"] * line["seconds"] <= line["seconds"]
        assert line["peak_memory_bytes"] > 2**20
        assert "mfu" not in line  # of a CPU
    assert "data_wait" not in folder.metrics()[0]  # what differs between attempts


@pytest.mark.gpu
def test_no_step_waits_for_the_device(tmp_path: Path) -> None:
    """From the fifth step on, PyTorch raises at every implicit synchronisation of the host."""
    extra = ("recipe.augment.random_erasing=0.5", "recipe.augment.crop_padding=2", "infra.device=cuda")
    config = configure("op=lsa", *STATE, *extra)
    steps = 0

    def watch() -> None:
        nonlocal steps
        steps += 1
        torch.cuda.set_sync_debug_mode("error" if 4 <= steps < 12 else "default")

    context = RunContext(config, RunFolder(tmp_path), Silent(), on_step=watch)
    try:
        loop.Training(context).run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps > 12
