"""A run's folder: the files of a run, whether it is finished, and which of them are damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ablate.errors import UserError
from ablate.store import damage
from ablate.store.damage import Damage
from ablate.store.run_files import CLAIM, OUTPUT, RunFiles, dump, load
from ablate.store.shapes import DAMAGED, ENDED, FAILED, FINISHED, INTERRUPTED, PENDING, PRUNED, RUNNING

__all__ = [
    "CLAIM",
    "DAMAGED",
    "ENDED",
    "FAILED",
    "FINISHED",
    "INTERRUPTED",
    "OUTPUT",
    "PENDING",
    "PRUNED",
    "RUNNING",
    "RunFolder",
    "dump",
    "find",
    "load",
]


@dataclass(frozen=True)
class RunFolder(RunFiles):
    """One run's folder; its paths and readers are those of `RunFiles`."""

    def finished(self) -> bool:
        """True once the run has its final figures and says so, and none of its files is damaged."""
        return self.state() == FINISHED and not self.damages()

    def damages(self) -> list[Damage]:
        """Damaged files of a run that no process is at work on, found without reading weights.

        Half a line at the end of the metrics of an unfinished run is what a killed process leaves, and no
        damage. `ablate verify` reads every byte.
        """
        return damage.find(self)


def find(runs_dir: Path, beginning: str) -> RunFolder:
    """The one run whose signature begins so.

    Raises:
        UserError: no run does, or several do.
    """
    safe = beginning if beginning.isalnum() else ""
    found = sorted(path.parent for path in runs_dir.glob(f"{safe}*/config.yaml")) if safe else []
    if len(found) == 1:
        return RunFolder(found[0])
    if found:
        raise UserError(f"{len(found)} runs begin with {beginning}", "give more of the signature")
    raise UserError(
        f"no run {beginning!r} under {runs_dir}", "`ablate status STUDY` shows signatures in its column `run`"
    )
