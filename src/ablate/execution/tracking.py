"""Log of the metrics in Weights & Biases. A run never fails because of it, and never waits for long."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ablate.commands import command
from ablate.compose.infra import TRACKING, WandbMode
from ablate.errors import UserError
from ablate.execution.claim import gone, this_process
from ablate.store import identity
from ablate.store.damage import DamagedError
from ablate.store.files import read_json, write_json
from ablate.store.folder import RunFolder
from ablate.store.manifest import Manifest

INIT_SECONDS, FINISH_SECONDS = 10, 10
SCRATCH, OWNER = "ablate-wandb-", "process.json"  # folder of the client's temporary files, and whose it is


class Tracker:
    """The W&B run of one run. Its id is the signature, so that a resumed run continues its own W&B run.

    The group is the study, the notes are the study's question, and the tags name operator, host, data and
    axes; `pair` in the configuration is the key that runs share which differ in their seed only.
    The first failure of any call is reported once and ends the logging; metrics.jsonl is the authoritative
    record.
    """

    def __init__(self, config: Mapping[str, Any], folder: RunFolder, note: Callable[[str], None]) -> None:
        self.note = note
        self.run: Any = None
        mode = TRACKING[config["infra"]["tracking"]]
        if mode != "disabled":
            self._guarded(lambda: self._start(config, folder, mode))

    def log(self, metrics: dict[str, Any]) -> None:
        """Log one epoch."""
        if self.run is not None:
            self._guarded(lambda: self.run.log(metrics, step=metrics["epoch"]))

    def finish(self, summary: dict[str, Any], exit_code: int) -> None:
        """Log the final figures and finish the W&B run."""
        if self.run is not None:
            self._guarded(lambda: self.run.summary.update(summary))
        if self.run is not None:
            self._guarded(lambda: self.run.finish(exit_code=exit_code))

    def _start(self, config: Mapping[str, Any], folder: RunFolder, mode: WandbMode) -> None:
        try:
            self.run = open_run(config, folder, mode)
        except Exception as error:
            if mode == "offline":
                raise
            self.note(f"W&B cannot be reached ({first_line(error)}): `ablate sync` sends the run later")
            self.run = open_run(config, folder, "offline")

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # whatever W&B raises: logging must not end a run
            self.run = None
            self.note(f"W&B logging stopped ({first_line(error)}); metrics.jsonl continues")


def open_run(config: Mapping[str, Any], folder: RunFolder, mode: WandbMode, **others: Any) -> Any:
    """Open the W&B run of a run; one that exists is continued.

    Args:
        config: of the run.
        folder: its folder, in which the client keeps its own files.
        mode: online or offline.
        others: arguments of `wandb.init`, which replace those here.

    Raises:
        Exception: whatever the client raises where it cannot reach its server, or has no key.
    """
    wandb = client()
    settings = {
        "project": config["infra"]["wandb_project"],
        "id": folder.signature,
        "name": f"{config['op']['name']}-{config['host']['name']}-s{config['seed']}",
        "group": config["study"]["name"] or identity.pair_key(config),
        "job_type": "train",
        "notes": config["study"]["question"],
        "tags": tags(config),
        "config": _public(config),
        "dir": str(folder.path),
        "reinit": "finish_previous",
    }
    settings = {**settings, "mode": mode, "resume": "allow", "settings": quiet(FINISH_SECONDS), **others}
    return wandb.init(**settings)


def project_of(folder: RunFolder) -> str:
    """Return the W&B project that a run's configuration names."""
    return str(folder.config()["infra"]["wandb_project"])


def project_of_study(runs_dir: Path, planned: Manifest) -> str:
    """Return the W&B project of a study: that of the first run whose configuration can be read.

    Raises:
        UserError: there is none.
    """
    for run in planned.runs:
        with suppress(DamagedError):
            folder = RunFolder(runs_dir / run.signature)
            if folder.config_path.exists():
                return project_of(folder)
    raise UserError(
        f"no run of study {planned.name} has a configuration that can be read",
        f"`{command('status', planned.name, runs_dir=runs_dir)}` shows what is wrong",
    )


def client() -> Any:
    """Return the W&B client, silenced."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_LOGIN_TIMEOUT", str(INIT_SECONDS))  # a prompt for a key waits no longer
    if "wandb" not in sys.modules:
        with _scratch():
            import wandb
    import wandb

    logging.getLogger("wandb").setLevel(logging.ERROR)
    return wandb


@contextmanager
def _scratch() -> Iterator[None]:
    """Within the block, temporary folders are made in one of this process's own, removed when it ends.

    The client makes two when it is imported, and a process that is killed leaves them; the next process
    removes those of processes that are gone.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        owner = read_json(left / OWNER)
        if isinstance(owner, dict) and left.stat().st_uid == os.getuid() and gone(owner):
            shutil.rmtree(left, ignore_errors=True)
    own = Path(tempfile.mkdtemp(prefix=SCRATCH))
    write_json(own / OWNER, this_process())
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    before, tempfile.tempdir = tempfile.tempdir, str(own)
    try:
        yield
    finally:
        tempfile.tempdir = before


def quiet(finish_seconds: float, *, strict: bool = False) -> Any:
    """Settings of the client: nothing of this machine is recorded, and nothing waits for long.

    Args:
        finish_seconds: time to send what is left at the end of a W&B run.
        strict: raise an error if that time is too short.
    """
    return client().Settings(
        console="off",
        silent=True,
        disable_git=True,
        save_code=False,
        init_timeout=INIT_SECONDS,
        finish_timeout=finish_seconds,
        finish_timeout_raises=strict,
        x_disable_stats=True,
    )


def tags(config: Mapping[str, Any]) -> list[str]:
    """Tags of a run: operator, host, data, and the level of each axis."""
    found = [config["op"]["name"], config["host"]["name"], config["data"]["name"]]
    for axis in ("weights", "norm", "region"):
        level = config["op"].get(axis)
        if isinstance(level, Mapping):
            found.append(f"{axis}={level['name']}")
    channel = config["op"].get("channel")
    if isinstance(channel, Mapping):
        found.append(f"heads={channel['heads']}")
    return found


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration and its pair key, without `infra`: paths of this machine stay private."""
    return {
        **{key: value for key, value in config.items() if key != "infra"},
        "pair": identity.pair_key(config),
    }


def first_line(error: Exception) -> str:
    """Message of an exception, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
