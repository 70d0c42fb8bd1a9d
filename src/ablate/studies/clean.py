"""`ablate clean`: what a folder of runs can do without. Shown first, deleted when told."""

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
    """A file or folder, and why nobody needs it."""

    path: Path
    reason: str

    @property
    def size(self) -> int:
        """Bytes."""
        if self.path.is_dir():
            return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        return self.path.stat().st_size


def clean(runs_dir: Path, checkpoints: bool, orphans: bool, delete: bool) -> None:
    """Show, or delete, what is left over.

    Args:
        checkpoints: the last checkpoints of finished runs too, which hold their weights.
        orphans: also the folders of runs that no study lists.
        delete: else they are shown only.
    """
    found = list(_waste(runs_dir, checkpoints, orphans))
    total = 0
    for waste in found:
        total += waste.size
        print(f"{waste.size / 1e6:9.1f} MB  {waste.path}  ({waste.reason})")
        if delete and waste.path.is_dir():
            shutil.rmtree(waste.path)
        elif delete:
            waste.path.unlink(missing_ok=True)
    if not found:
        print(f"{runs_dir}: nothing to clean")
    elif delete:
        print(f"deleted {len(found)}: {total / 1e6:.1f} MB")
    else:
        print(f"{len(found)}: {total / 1e6:.1f} MB; nothing was deleted, --yes does it")


def _waste(runs_dir: Path, checkpoints: bool, orphans: bool) -> Iterator[Waste]:
    if (runs_dir / SWEEPS).is_dir():
        yield Waste(runs_dir / SWEEPS, "Hydra's record of sweeps")
    # a damaged manifest raises: which runs are orphans is not known without it
    names = manifest.names(runs_dir) if orphans else []
    listed = {run.signature for name in names for run in manifest.load(runs_dir, name).runs}
    for path in sorted(path.parent for path in runs_dir.glob("*/config.yaml")):
        if living_holder(path) is not None:
            continue
        if orphans and path.name not in listed:
            yield Waste(path, "a run of no study")
            continue
        for part in path.glob(".*.part"):
            yield Waste(part, "half-written by a process that was killed")
        for damaged in path.glob("*.damaged"):
            yield Waste(damaged, "a damaged checkpoint")
        if RunFolder(path).finished():
            for file in (path / "checkpoint.previous.pt", path / "checkpoint.next"):
                if file.exists():
                    yield Waste(file, "an earlier checkpoint of a finished run")
            if checkpoints and RunFolder(path).checkpoint_path.exists():
                yield Waste(RunFolder(path).checkpoint_path, "the weights of a finished run")
