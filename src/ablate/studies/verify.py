"""`ablate verify`: read every byte of a study's runs and name the files that are damaged."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ablate.commands import command
from ablate.execution.claim import living_holder
from ablate.store import damage, digests, manifest
from ablate.store.folder import FINISHED, RunFolder


def verify(runs_dir: Path, study: str) -> bool:
    """Print the damaged files and a summary; return True if there are none. Nothing is changed.

    Files of finished runs are compared with the digests that were written with the result; those of runs that
    finished under a version without digests, and of unfinished runs, are read as far as any verb reads them.

    Raises:
        UserError: no such study.
    """
    planned = manifest.load(runs_dir, study)
    console = Console(stderr=True, highlight=False)
    compared = damaged = without = 0
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        for run in progress.track(planned.runs, description=f"verify {study}"):
            folder = RunFolder(runs_dir / run.signature)
            if not folder.path.is_dir() or living_holder(folder.path) is not None:
                continue
            found = damage.find_changed(folder)
            for one in found:
                print(f"{one.path}: {one.reason}")
            damaged += bool(found)
            if folder.state() == FINISHED:
                has_digests = digests.read(folder.path)[0] is not None
                compared, without = compared + has_digests, without + (not has_digests)
    parts = [f"{compared} runs compared with their digests"]
    if without:
        parts.append(f"{without} without digests, read only")
    if others := len(planned.runs) - compared - without:
        parts.append(f"{others} not finished")
    print(f"{study}: {', '.join(parts)}; {damaged or 'none'} damaged")
    if damaged:
        again = command("retry", study, "--damaged", runs_dir=runs_dir)
        print(f"to compute what is damaged again: {again}")
    return not damaged
