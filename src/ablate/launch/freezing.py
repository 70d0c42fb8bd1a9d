"""Freeze a run: write its configuration and first state into its folder, unless it is done or active."""

from __future__ import annotations

from typing import Any

from ablate.execution import pruning
from ablate.execution.attempts import set_aside
from ablate.execution.claim import ClaimedError, living_holder
from ablate.store import damage
from ablate.store.files import now, write_json, write_text
from ablate.store.folder import ENDED, FAILED, FINISHED, PENDING, RUNNING, RunFolder, dump

READY, QUEUED = "ready", "queued"  # to be started now; in a job of the cluster


def freeze(
    folder: RunFolder,
    config: dict[str, Any],
    *,
    queued: bool,
    retry: bool,
    thorough: bool = False,
    anew: bool = False,
) -> str:
    """Freeze one run unless it is finished, being computed, queued or failed, and return its state.

    Args:
        folder: of the run.
        config: of the run.
        queued: the run is in a job of the cluster.
        retry: a run that failed is frozen again.
        thorough: read every byte of a finished run, which is not finished if it is damaged.
        anew: a finished run is computed again from its beginning; its result is kept in attempts/N.

    Returns:
        READY if the run is frozen now; else FINISHED, RUNNING, QUEUED or FAILED.
    """
    finished = folder.finished() and not (thorough and damage.find_changed(folder))
    if finished and not anew:
        return FINISHED
    if folder.path.exists() and living_holder(folder.path) is not None:
        return RUNNING
    if queued:
        return QUEUED
    if folder.state() == FAILED and not retry:
        return FAILED
    if finished:
        try:
            set_aside(folder)
        except ClaimedError:
            return RUNNING
    folder.path.mkdir(exist_ok=True)
    pruning.withdraw(folder)
    write_text(folder.config_path, dump(config))
    if folder.status_is_new():
        record = {"state": PENDING, "attempt": 0, "created": now(), "updated": now(), "error": None}
        write_json(folder.status_path, {**record, "epoch": 0, "epochs": config["recipe"].get("epochs")})
    elif folder.state() in ENDED:  # damaged; jobs skip the runs that failed
        again = {"state": PENDING, "asked": now(), "updated": now(), "error": None}
        write_json(folder.status_path, {**folder.status(), **again})
    return READY
