"""Image files looked at when runs are submitted: `data.verify`, and `data.corrupt` for what is found.

`fast` opens every file, of very many a sample of MOST at most, and decodes those that end too early or do not
begin as an image; `full` decodes every file; `off` opens none. A run decodes its validation and test images
once more when it starts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from ablate.data.decoding import read_image
from ablate.errors import UserError, unknown

FAST, FULL, OFF = "fast", "full", "off"
REFUSE, SKIP = "refuse", "skip"
MOST = 20_000  # files that `fast` opens
SHOWN = 5  # files that an error names
TAIL = 4096  # bytes at the end of a file that hold its end mark
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # marks of formats that have one


def check_settings(verify: str, corrupt: str = REFUSE) -> None:
    """Refuse settings that do not exist.

    Raises:
        UserError: names them.
    """
    if verify not in (FAST, FULL, OFF):
        raise unknown("data.verify", str(verify), (FAST, FULL, OFF))
    if corrupt not in (REFUSE, SKIP):
        raise unknown("data.corrupt", str(corrupt), (REFUSE, SKIP))
    if corrupt == SKIP and verify != FULL:
        raise UserError(
            f"data.corrupt=skip with data.verify={verify}, which does not find all images to be skipped",
            "use data.verify=full",
        )


def unreadable(paths: Sequence[str], verify: str) -> dict[str, str]:
    """Return the image files that cannot be read, with the reasons, in the order given."""
    if verify == OFF:
        return {}
    if verify == FAST:
        paths = paths[:: max(1, -(-len(paths) // MOST))]
    check = _fault if verify == FULL else _fault_at_a_glance
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        found = zip(paths, pool.map(check, paths), strict=True)
        return {path: fault for path, fault in found if fault is not None}


def refuse_unreadable(paths: Sequence[str], verify: str) -> None:
    """Refuse image files that cannot be read.

    Raises:
        UserError: how many there are, and the first of them.
    """
    faults = unreadable(paths, verify)
    if faults:
        count = f"{len(faults)} image{'s' * (len(faults) != 1)} cannot be read"
        more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        listed = "".join(f"\n  {path}: {reason}" for path, reason in [*faults.items()][:SHOWN])
        raise UserError(f"{count}:{listed}{more}", "restore or remove them")


def _fault(path: str) -> str | None:
    """Decode a file; return what is wrong with it."""
    try:
        read_image(path, reduced=True)
    except UserError as error:
        return error.problem.partition(f"{path}: ")[2] or error.problem
    return None


def _fault_at_a_glance(path: str) -> str | None:
    """Open a file and look at its end; decode it only if it looks wrong."""
    try:
        if not Path(path).stat().st_size:
            return "the file is empty"
        with Image.open(path) as file:
            mark = ENDS.get(file.format or "")
        if mark is None or mark in _tail(path):
            return None
    except Exception:  # damaged files raise OSError, SyntaxError, struct.error, zlib.error, …
        return _fault(path)
    return _fault(path)


def _tail(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - TAIL))
        return stream.read()
