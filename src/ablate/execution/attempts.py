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
            # Weights first: a kill in between leaves nothing that a later start could resume. The state last:
            # until then the run counts as finished or damaged, and another retry moves what is left.
            moved = [path.name for path in folder.path.glob("checkpoint.*")]
            moved += [name for name in (*FILES, DIGESTS, folder.error_path.name) if name not in STAYS]
            for name in dict.fromkeys(moved):
                if (folder.path / name).exists():
                    (folder.path / name).rename(target / name)
            again = {"state": PENDING, "asked": now(), "updated": now(), "error": None, "epoch": 0}
            write_json(folder.status_path, {**status, **again})
    return target
