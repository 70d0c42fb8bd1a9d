"""Training: falling loss, exact repetition, exact resumption, and every way to be damaged."""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ablate.configuration import conf_dir
from ablate.errors import UserError
from ablate.execution.execute import execute
from ablate.store.files import Guard
from ablate.store.folder import RunFolder
from ablate.tasks.classification import Classification
from ablate.tasks.contract import Figures
from ablate.training import checkpoint, loop, optimization, recipe


class Quiet:
    """Collects notes; may stop the run after some steps."""

    def __init__(
        self, stop_after: int | None = None, exception: type[BaseException] = KeyboardInterrupt
    ) -> None:
        self.notes: list[str] = []
        self.steps, self.stop_after, self.exception = 0, stop_after, exception

    def started(self, title: str, steps: int, done: int) -> None: ...
    def epoch_ended(self, metrics: dict[str, Any], epochs: int) -> None: ...
    def finished(self) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stepped(self, loss: float) -> None:
        self.steps += 1
        if self.steps == self.stop_after:
            raise self.exception


Configure = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def configure() -> Configure:
    def make(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("train", ["recipe=debug", "data=synthetic", "infra.tracking=none", *overrides])
        plain: Any = OmegaConf.to_container(config, resolve=True)
        return plain

    return make


def run(config: dict[str, Any], path: Path, reporter: Quiet | None = None) -> RunFolder:
    path.mkdir(exist_ok=True)
    execute(path, config, reporter or Quiet())
    return RunFolder(path)


def comparable(folder: RunFolder) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, torch.Tensor]]:
    """What must be equal to the bit: metrics and results without times, and the weights."""
    saved, notes = checkpoint.load(folder.checkpoint_path)
    assert saved is not None
    assert not notes
    return [untimed(line) for line in folder.metrics()], untimed(folder.result() or {}), saved.model


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    timing = {"seconds", "images_per_second", "throughput", "train_seconds", "data_wait", "peak_memory_bytes"}
    return {key: value for key, value in record.items() if key not in timing}


def assert_same(first: RunFolder, second: RunFolder) -> None:
    metrics, result, weights = comparable(first)
    assert (metrics, result) == comparable(second)[:2]
    assert all(torch.equal(weights[name], value) for name, value in comparable(second)[2].items())


def test_same_seed_same_bits_and_an_interrupted_run_too(configure: Configure, tmp_path: Path) -> None:
    # everything with state: mixup (NumPy's generator), drop-path (PyTorch's), EMA, accumulation
    extra = ["recipe.mixup=0.8", "recipe.ema_decay=0.9", "host.drop_path_rate=0.2", "recipe.accumulate=2"]
    config = configure(*extra, "recipe.epochs=3", "recipe.augment.horizontal_flip=0.5")
    whole = run(config, tmp_path / "whole")
    steps = whole.metrics()[0]["step"]
    torch.manual_seed(99)
    assert_same(run(config, tmp_path / "again"), whole)
    for stop in (steps // 2, steps + 3):  # in the first epoch, and in the second
        path = tmp_path / f"stopped_{stop}"
        with pytest.raises(KeyboardInterrupt):
            run(config, path, Quiet(stop_after=stop))
        assert RunFolder(path).state() == "interrupted"
        assert_same(run(config, path), whole)
        assert RunFolder(path).status()["attempt"] == 2


class Signalled(Quiet):
    """Asks this process to stop, as SLURM does, after some steps."""

    def stepped(self, loss: float) -> None:
        self.steps += 1
        if self.steps == self.stop_after:
            os.kill(os.getpid(), signal.SIGUSR2)


@pytest.mark.parametrize("how", ["signal", "kill"])
def test_a_run_goes_on_in_the_middle_of_an_epoch_to_the_same_bits(
    how: str, configure: Configure, tmp_path: Path
) -> None:
    extra = ["recipe.mixup=0.8", "recipe.ema_decay=0.9", "host.drop_path_rate=0.2", "recipe.accumulate=2"]
    config = configure(*extra, "recipe.augment.random_erasing=0.5", "recipe.augment.crop_padding=2")
    whole = run(config, tmp_path / "whole")
    steps = whole.metrics()[0]["step"]
    if how == "kill":  # without a word: the checkpoint of the step before is all that there is
        config["infra"]["checkpoint_minutes"] = 1e-9
    for stop in (1, steps // 2, steps, steps + 3, 2 * steps):
        # the loss of a step is read within the step after it, which is then the last one
        last = stop - 1 if how == "kill" else stop if stop % steps == 0 else stop + 1
        path = tmp_path / f"stopped_{stop}"
        with pytest.raises(KeyboardInterrupt if how == "signal" else SystemExit):
            run(config, path, Signalled(stop) if how == "signal" else Quiet(stop, SystemExit))
        found, _ = checkpoint.load(RunFolder(path).checkpoint_path)
        assert found is not None
        assert found.step == last
        resumed = run(config, path)
        assert_same(resumed, whole)
        assert resumed.metrics_path.read_bytes() == whole.metrics_path.read_bytes()


def test_a_crash_between_metrics_and_checkpoint_repeats_the_epoch(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    whole = run(config, tmp_path / "whole")
    save = checkpoint.save

    def crash(path: Path, state: checkpoint.Checkpoint, guard: Guard) -> None:
        if state.epoch == 2:
            raise SystemExit
        save(path, state, guard)

    monkeypatch.setattr(checkpoint, "save", crash)
    with pytest.raises(SystemExit):
        run(config, tmp_path / "crashed")
    monkeypatch.setattr(checkpoint, "save", save)
    assert len(RunFolder(tmp_path / "crashed").metrics()) == 2
    assert_same(run(config, tmp_path / "crashed"), whole)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "garbage", "metrics"])
def test_damaged_files_are_named_and_the_run_ends_as_it_would(
    damage: str, configure: Configure, tmp_path: Path
) -> None:
    config = configure()
    whole = run(config, tmp_path / "whole")
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(config, path, Quiet(stop_after=whole.metrics()[0]["step"] + 1))
    folder = RunFolder(path)
    if damage == "metrics":
        text = folder.metrics_path.read_bytes()
        folder.metrics_path.write_bytes(text[: len(text) // 2])
    else:
        data = bytearray(folder.checkpoint_path.read_bytes())
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
        folder.checkpoint_path.write_bytes(
            {"truncated": data[:middle], "flipped": flipped, "garbage": b"no"}[damage]
        )
    reporter = Quiet()
    assert_same(run(config, path, reporter), whole)
    assert (
        "metrics.jsonl is broken" if damage == "metrics" else "checkpoint.pt cannot be used"
    ) in reporter.notes[0]


def test_the_checkpoint_before_takes_the_place_of_a_damaged_one(configure: Configure, tmp_path: Path) -> None:
    config = configure("recipe.epochs=4")
    whole = run(config, tmp_path / "whole")
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(config, path, Quiet(stop_after=3 * whole.metrics()[0]["step"] + 1))
    folder = RunFolder(path)
    folder.checkpoint_path.write_bytes(folder.checkpoint_path.read_bytes()[:-100])
    reporter = Quiet()
    assert_same(run(config, path, reporter), whole)
    assert "resuming from step" in reporter.notes[0]
    assert folder.checkpoint_path.with_name("checkpoint.pt.damaged").exists()


def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_damaged(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(configure(), tmp_path / "run")
    folder.result_path.unlink()

    def stale(*_: object, **__: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(checkpoint.zipfile, "ZipFile", stale)
    assert "Stale file handle" in run(configure(), tmp_path / "run").status()["error"]
    assert folder.checkpoint_path.exists()


def test_a_batch_larger_than_the_set_is_refused(configure: Configure, tmp_path: Path) -> None:
    folder = run(configure("recipe.batch_size=512", "recipe.accumulate=16"), tmp_path / "run")
    assert "lower it to 256 or less" in folder.error()


def test_a_checkpoint_that_would_execute_something_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "executed",)  # type: ignore[return-value]

    torch.save({"epoch": Evil()}, tmp_path / "checkpoint.pt")
    assert checkpoint.load(tmp_path / "checkpoint.pt")[0] is None
    assert not (tmp_path / "executed").exists()


def test_a_loss_that_is_no_number_ends_the_run_as_failed(configure: Configure, tmp_path: Path) -> None:
    config = configure("recipe.learning_rate=1e30", "recipe.clip_grad=null", "recipe.epochs=3")
    folder = run(config, tmp_path / "run")
    status = folder.status()
    assert status["state"] == "failed"
    assert "NonFiniteLossError" in status["error"]
    assert "at step" in status["error"]
    assert "last good epoch" in folder.error() or "no epoch was finished" in folder.error()
    assert "loss is nan at step" in folder.error()
    assert folder.result() is None


def test_a_full_disk_keeps_the_checkpoint_before(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("recipe.epochs=3")
    whole = run(config, tmp_path / "whole")
    save, full = checkpoint.save, {"now": True}

    def fill(path: Path, state: checkpoint.Checkpoint, guard: Guard) -> None:
        if state.epoch == 2 and full["now"]:
            raise OSError(28, "No space left on device")
        save(path, state, guard)

    monkeypatch.setattr(checkpoint, "save", fill)
    folder = run(config, tmp_path / "run")
    assert folder.state() == "failed"
    assert "No space left on device" in folder.status()["error"]
    full["now"] = False
    config["infra"]["retry_failed"] = True
    assert_same(run(config, tmp_path / "run"), whole)


def test_a_run_that_another_process_works_on_is_left_alone(configure: Configure, tmp_path: Path) -> None:
    from ablate.execution.claim import claim

    path = tmp_path / "run"
    path.mkdir()
    with claim(path):
        outcome = execute(path, configure(), Quiet())
    assert outcome.state == "claimed"
    assert not (path / "status.json").exists()


def test_tested_are_the_weights_that_were_best_on_validation(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([50.0, 90.0, 60.0, 1.0])  # three epochs of validation, then the test
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate(_task: object, model: torch.nn.Module, *_: object, **__: object) -> Figures:
        seen.append(copy.deepcopy(model.state_dict()))
        return Figures({"loss": 1.0, "top1": next(accuracies), "top5": 100.0}, {})

    monkeypatch.setattr(Classification, "evaluate", evaluate)
    result = run(configure("recipe.epochs=3"), tmp_path / "run").result()
    assert (result["best_epoch"], result["validation_top1"], result["test_top1"]) == (2, 90.0, 1.0)
    assert all(torch.equal(seen[3][name], value) for name, value in seen[1].items())
    assert not all(torch.equal(seen[3][name], value) for name, value in seen[2].items())


def test_runs_of_one_seed_are_true_pairs(configure: Configure) -> None:
    first, second = (loop.build_model(configure(f"op={op}", "seed=5")).state_dict() for op in ("lsa", "elsa"))
    shared = [name for name in first if not (name.startswith("layers.0") and ".attn." in name)]
    assert all(torch.equal(first[name], second[name]) for name in shared)


def test_relative_positions_norms_and_biases_are_not_decayed(configure: Configure) -> None:
    model = loop.build_model(configure("op=elsa_equation", "host.stages=null"))
    optimizer = optimization.optimizer(model, recipe.read(configure()["recipe"]))
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        kept = parameter.ndim <= 1 or "position" in name
        assert (id(parameter) in decayed) != kept, name


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({"precision": "float8"}, "bfloat16, float16, float32"),
        ({"accumulate": 3}, "does not divide"),
        ({"mixup": 0.8, "batch_size": 15}, "in pairs"),
        ({"epochs": 0}, "1 or more"),
        ({"epoch": 3}, "did you mean 'recipe.epochs'"),
        ({"learning_rate": 0}, "positive"),
        ({"learning_rate": "fast"}, "expected float"),
        ({"weight_decay": float("nan")}, "expected float"),
        ({"epochs": True}, "expected int"),
        ({"ema_decay": 3}, "between 0 and 1"),
        ({"augment": None}, "expected a group of settings"),
    ],
)
def test_recipes_that_cannot_be(override: dict[str, Any], expected: str, configure: Configure) -> None:
    with pytest.raises(UserError, match=expected):
        recipe.read({**configure()["recipe"], **override})


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_and_resumes(precision: str, configure: Configure, tmp_path: Path) -> None:
    config = configure(f"recipe.precision={precision}", "data.train=64")
    whole = run(config, tmp_path / "whole")
    assert whole.finished(), whole.error()
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "stopped", Quiet(stop_after=whole.metrics()[0]["step"] + 1))
    assert_same(run(config, tmp_path / "stopped"), whole)


def test_what_weights_and_biases_is_told(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    from ablate.store import identity

    started: dict[str, Any] = {}
    logged: list[dict[str, Any]] = []

    class Page:
        """A double: shows what is sent, and nothing about W&B's server."""

        def __init__(self) -> None:
            self.summary: dict[str, Any] = {}

        def log(self, metrics: dict[str, Any], step: int) -> None:
            logged.append(metrics)
            if step == 2:
                raise ConnectionError("the network is gone")

        def finish(self, exit_code: int) -> None: ...

    monkeypatch.setattr(wandb, "init", lambda **settings: started.update(settings) or Page())
    named = ("study.name=axes", "study.question=Which?")
    config = configure("infra.tracking=wandb", "op=elsa", "recipe.epochs=3", *named)
    path, reporter = tmp_path / identity.signature(config), Quiet()
    assert run(config, path, reporter).finished()
    assert started["id"] == path.name
    assert (started["group"], started["job_type"], started["notes"]) == ("axes", "train", "Which?")
    assert started["config"]["pair"] == identity.pair_key(config)
    assert {"elsa", "swin_micro", "weights=hadamard_conv", "norm=softmax", "region=neighborhood"} <= set(
        started["tags"]
    )
    assert "infra" not in started["config"]
    assert [metrics["epoch"] for metrics in logged] == [1, 2]
    assert [note for note in reporter.notes if "the network is gone" in note]


def test_an_environment_holds_versions_and_hardware_but_no_environment_variable(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "f00d" * 10)
    folder = run(configure("infra.tracking=wandb_offline"), tmp_path / "run")
    environment = json.loads(folder.environment_path.read_text())
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["hardware"]["threads"] >= 1
    assert any((tmp_path / "run" / "wandb").rglob("*.wandb"))
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or b"f00df00d" not in file.read_bytes(), file
