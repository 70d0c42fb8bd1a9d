"""Files written whole or not at all, and line files read as far as they are whole."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it into place.

    Data reach the disk before the rename, so that a crash or a full disk leaves the previous
    file as it was. The temporary file is removed when anything goes wrong.

    Raises:
        OSError: the disk is full or the folder cannot be written; `path` is untouched.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, whole or not at all. NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file, or None if the file is missing or not valid JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return None


def append_json_line(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON line and flush it to disk."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole records of a JSON-lines file, and the number of broken lines after them.

    Reading stops at the first line that is not a complete JSON object: what follows a broken
    line cannot be trusted to be in order. A missing file has no lines.
    """
    if not path.exists():
        return [], 0
    records: list[dict[str, Any]] = []
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
        except (UnicodeDecodeError, json.JSONDecodeError):
            return records, len(lines) - number
        if not isinstance(record, dict) or not line.endswith(b"\n"):
            return records, len(lines) - number
        records.append(record)
    return records, 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among the processes that lock `path`, until the block ends."""
    with path.open("w") as stream:
        with suppress(OSError):  # some network folders have no locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
