"""The frozen configuration of a run whose config.yaml is damaged, from another seed of the same setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.store.damage import DamagedError
from ablate.store.folder import RunFolder
from ablate.store.identity import signature
from ablate.store.manifest import Manifest, PlannedRun


def configuration(runs_dir: Path, planned: Manifest, run: PlannedRun) -> dict[str, Any] | None:
    """Return a run's configuration, or None where it is damaged and no other run has its settings.

    A rebuilt configuration is exact: its signature is the name of the run's folder. Settings of `infra` are
    those of the other run.
    """
    if found := _read(runs_dir / run.signature):
        return found
    for other in planned.runs:
        if other.pair_key == run.pair_key and other.signature != run.signature:
            candidate = {**_read(runs_dir / other.signature), "seed": run.seed}
            if signature(candidate) == run.signature:
                return candidate
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return RunFolder(path).config()
    except DamagedError:
        return {}
