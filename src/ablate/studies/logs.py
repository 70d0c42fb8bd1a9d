"""Output of a run: what it printed, its traceback, and the output files of its jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from ablate.errors import UserError
from ablate.store.folder import FINISHED, OUTPUT, RunFolder
from ablate.store.jobs import of_study
from ablate.store.manifest import names
from ablate.studies import states


def read(folder: RunFolder, follow: bool = False, lines: int | None = None) -> Iterator[str]:
    """Yield a run's output, and its traceback if it failed.

    Args:
        folder: of the run.
        follow: continue until the run has ended.
        lines: the last ones only.

    Raises:
        UserError: nothing was printed yet, and `follow` is not set.
    """
    output = folder.path / OUTPUT
    if not output.exists() and not folder.error() and not follow:
        raise UserError(
            f"run {folder.signature} has printed nothing: it is {folder.state()}",
            "hydra/launcher=inline prints to its terminal; --follow waits for a run that has not begun",
        )
    place = 0
    if output.exists():
        text = output.read_text(encoding="utf-8", errors="replace")
        place = output.stat().st_size
        kept = text.splitlines(keepends=True)
        yield "".join(kept[-lines:] if lines else kept)
    while follow:
        ended = folder.state() == FINISHED or states.state_of(folder) in states.AGAIN
        if output.exists() and output.stat().st_size > place:
            with output.open("rb") as stream:
                stream.seek(place)
                new = stream.read()
            place += len(new)
            yield new.decode(errors="replace")
        if ended:
            break
        time.sleep(0.5)
    if error := folder.error():
        yield error


def of_jobs(runs_dir: Path, signature: str) -> list[Path]:
    """Return the output files of the jobs that had the run."""
    found: list[Path] = []
    for study in names(runs_dir):
        for jobs in of_study(runs_dir, study):
            for number, pack in enumerate(jobs.packs):
                if signature in pack and (job := jobs.job_of(number)):
                    found += sorted(jobs.logs(runs_dir).glob(f"{job}_*_log.out"))
    return found
