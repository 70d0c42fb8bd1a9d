"""Runs that a living launcher is about to start. A pending run without a launcher or a job is lost."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ablate.execution.claim import Claim, is_here, living
from ablate.store.files import read_json

FOLDER = ".launchers"  # in the folder of runs: one file per launcher, kept alive as a claim is


@contextmanager
def served(runs_dir: Path, signatures: Iterable[str]) -> Iterator[None]:
    """Announce that this process starts these runs, until the block ends or the process dies."""
    folder = runs_dir / FOLDER
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        if (holder := read_json(path)) is not None and is_here(holder) and living(path) is None:
            path.unlink(missing_ok=True)  # of a launcher that was killed
    claim = Claim(folder / f"{secrets.token_hex(8)}.json", runs=sorted(signatures))
    try:
        yield
    finally:
        claim.release()


def signatures(runs_dir: Path) -> set[str]:
    """Signatures of the runs of all living launchers."""
    holders = (living(path) for path in (runs_dir / FOLDER).glob("*.json"))
    return {str(run) for holder in holders if holder is not None for run in holder.get("runs") or ()}
