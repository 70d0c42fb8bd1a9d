"""`ablate logs`: what a run printed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ablate.errors import UserError
from ablate.store.folder import FINISHED, OUTPUT, find
from ablate.store.jobs import of_study
from ablate.store.manifest import names
from ablate.studies import states


def show(runs_dir: Path, beginning: str, follow: bool = False, lines: int | None = None) -> None:
    """Print a run's output, its traceback if it failed, and where its job's own output is.

    Args:
        beginning: of the run's signature.
        follow: go on printing until the run has ended.
        lines: the last ones only.

    Raises:
        UserError: no run, or several, whose signature begins so; nothing printed yet.
    """
    folder = find(runs_dir, beginning)
    output, error = folder.path / OUTPUT, folder.error()
    for log in _of_jobs(runs_dir, folder.signature):
        print(f"job: {log}", file=sys.stderr)
    if not output.exists() and not error and not follow:
        raise UserError(
            f"run {folder.signature} has printed nothing: it is {folder.state()}",
            "hydra/launcher=inline prints to its terminal; --follow waits for a run that has not begun",
        )
    place = 0
    if output.exists():
        text = output.read_text(encoding="utf-8", errors="replace")
        place = output.stat().st_size
        kept = text.splitlines(keepends=True)
        sys.stdout.write("".join(kept[-lines:] if lines else kept))
    while follow:
        ended = folder.state() == FINISHED or states.state_of(folder) in states.AGAIN
        if output.exists() and output.stat().st_size > place:
            with output.open("rb") as stream:
                stream.seek(place)
                new = stream.read()
            place += len(new)
            sys.stdout.write(new.decode(errors="replace"))
            sys.stdout.flush()
        if ended:
            break
        time.sleep(0.5)
    if error := folder.error():
        sys.stdout.write(error)


def _of_jobs(runs_dir: Path, signature: str) -> list[Path]:
    """Output files of the jobs that had the run."""
    found: list[Path] = []
    for study in names(runs_dir):
        for jobs in of_study(runs_dir, study):
            for number, pack in enumerate(jobs.packs):
                if signature in pack and (job := jobs.job_of(number)):
                    found += sorted(jobs.logs(runs_dir).glob(f"{job}_*_log.out"))
    return found
