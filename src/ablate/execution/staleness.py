"""Changes of code and data since a run was computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ablate.store import code
from ablate.store.folder import RunFolder


def changed_since(folders: Iterable[RunFolder]) -> list[list[str]]:
    """Return for each run what has changed since it was computed: modules, and its data set's files."""
    return code.changed_in_each((record, _today(folder, record)) for folder, record in _records(folders))


def _records(folders: Iterable[RunFolder]) -> Iterable[tuple[RunFolder, code.Record]]:
    return ((folder, folder.environment() or {}) for folder in folders)


def _today(folder: RunFolder, record: code.Record) -> Mapping[str, str] | None:
    """Return digests of the data of a run as they are now; None where the run recorded none."""
    if not code.has_data(record):
        return None
    from ablate.data import content_today  # with NumPy, which most questions do without

    return content_today(folder.config())
