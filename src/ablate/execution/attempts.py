"""Earlier results of a run, kept in its folder in attempts/N when it is computed anew."""

from __future__ import annotations

from pathlib import Path

from ablate.execution.claim import claim
from ablate.store.digests import DIGESTS, FILES
from ablate.store.files import now, write_json
from ablate.store.folder import PENDING, RunFolder

FOLDER = "attempts"
STAYS = ("config.yaml", "status.json")


def set_aside(folder: RunFolder) -> Path:
    """Move the result and the weights of a run into a folder of their own, so that it is computed anew.

    Returns:
        attempts/N in the run's folder, N counting from 1; status.json is copied there.

    Raises:
        ClaimedError: a living process holds the claim; nothing was moved.
    """
    with claim(folder.path) as claimed:
        kept = folder.path / FOLDER
        numbers = [int(path.name) for path in kept.glob("*") if path.name.isdecimal()]
        target = kept / str(max(numbers, default=0) + 1)
        target.mkdir(parents=True)
        status = folder.status()
        with claimed.writing():
            write_json(target / folder.status_path.name, status)
            again = {"state": PENDING, "asked": now(), "updated": now(), "error": None, "epoch": 0}
            write_json(folder.status_path, {**status, **again})
            # the record of the code is the last to go: a run that resumes what is left is known by it
            names = [name for name in (*FILES, DIGESTS, folder.error_path.name) if name not in STAYS]
            for name in sorted(names, key=lambda name: name == folder.environment_path.name):
                if (folder.path / name).exists():
                    (folder.path / name).rename(target / name)
            for path in folder.path.glob("checkpoint.*"):
                path.rename(target / path.name)
    return target
