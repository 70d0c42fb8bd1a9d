"""Files in a folder of runs that can be deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ablate.execution.claim import living_holder
from ablate.store import manifest
from ablate.store.folder import RunFolder

SWEEPS = ".hydra"  # Hydra's own record of each sweep; a run's configuration is in its folder


@dataclass(frozen=True)
class Waste:
    """A file or folder that can be deleted, and the reason."""

    path: Path
    reason: str

    @property
    def size(self) -> int:
        """Size in bytes."""
        if self.path.is_dir():
            return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        return self.path.stat().st_size

    def delete(self) -> None:
        """Delete it."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def find(runs_dir: Path, checkpoints: bool = False, orphans: bool = False) -> Iterator[Waste]:
    """Yield the files and folders that can be deleted.

    Args:
        runs_dir: folder of the runs.
        checkpoints: also the last checkpoints of finished runs, which hold their weights.
        orphans: also the folders of runs that no study lists.

    Raises:
        UserError: the manifest of a study is damaged, so that orphans are not known.
    """
    if (runs_dir / SWEEPS).is_dir():
        yield Waste(runs_dir / SWEEPS, "Hydra's record of sweeps")
    names = manifest.names(runs_dir) if orphans else []
    listed = {run.signature for name in names for run in manifest.load(runs_dir, name).runs}
    for path in sorted(path.parent for path in runs_dir.glob("*/config.yaml")):
        if living_holder(path) is not None:
            continue
        if orphans and path.name not in listed:
            yield Waste(path, "a run that no study lists")
            continue
        for part in path.glob(".*.part"):
            yield Waste(part, "half-written by a process that was killed")
        for damaged in path.glob("*.damaged"):
            yield Waste(damaged, "a damaged checkpoint")
        if RunFolder(path).finished():
            for file in (path / "checkpoint.previous.pt", path / "checkpoint.next"):
                if file.exists():
                    yield Waste(file, "an earlier checkpoint of a finished run")
            for file in path.glob("attempts/*/checkpoint.*") if checkpoints else ():
                yield Waste(file, "the weights of an earlier attempt")
            if checkpoints and RunFolder(path).checkpoint_path.exists():
                yield Waste(RunFolder(path).checkpoint_path, "the weights of a finished run")
