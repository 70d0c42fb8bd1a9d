"""Read every byte of a study's runs, and find the files that are damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ablate.execution.claim import living_holder
from ablate.store import damage, digests, manifest
from ablate.store.damage import Damage
from ablate.store.folder import FINISHED, RunFolder
from ablate.store.manifest import PlannedRun


@dataclass
class Verification:
    """Result of a verification.

    Attributes:
        damages: the damaged files.
        damaged: number of runs with damaged files.
        compared: number of runs whose files were compared with their digests.
        without: number of finished runs without digests, whose files were read only.
        unfinished: number of the other runs.
    """

    damages: list[Damage] = field(default_factory=list)
    damaged: int = 0
    compared: int = 0
    without: int = 0
    unfinished: int = 0


def verify(
    runs_dir: Path, study: str, track: Callable[[Sequence[PlannedRun]], Iterable[PlannedRun]] = iter
) -> Verification:
    """Read the files of all runs of a study but those that are being computed. Nothing is changed.

    Files of finished runs are compared with the digests that were written with the result; those of runs that
    finished under a version without digests, and of unfinished runs, are read as far as any verb reads them.

    Args:
        runs_dir: folder of the runs.
        study: its name.
        track: yields the runs, and may show how many are done.

    Raises:
        UserError: no such study.
    """
    planned, found = manifest.load(runs_dir, study), Verification()
    for run in track(planned.runs):
        folder = RunFolder(runs_dir / run.signature)
        if not folder.path.is_dir() or living_holder(folder.path) is not None:
            continue
        changed = damage.find_changed(folder)
        found.damages += changed
        found.damaged += bool(changed)
        if folder.state() == FINISHED:
            has_digests = digests.read(folder.path)[0] is not None
            found.compared += has_digests
            found.without += not has_digests
    found.unfinished = len(planned.runs) - found.compared - found.without
    return found
