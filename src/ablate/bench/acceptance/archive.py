"""Files of a step in one zip archive, which is whole at any time."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from ablate.store.files import write_atomically


def add(path: Path, members: Mapping[str, bytes]) -> None:
    """Add files to an archive, or replace them; a process that is killed meanwhile leaves it as it was."""
    found: dict[str, bytes] = {}
    if path.exists():
        with zipfile.ZipFile(path) as earlier:
            found = {name: earlier.read(name) for name in earlier.namelist()}
    found |= members

    def write(stream: IO[bytes]) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in found.items():
                archive.writestr(name, content)

    write_atomically(path, write)
