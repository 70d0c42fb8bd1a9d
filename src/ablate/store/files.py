"""Files written whole or not at all, and line files read as far as they are whole."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

Guard = Callable[[], AbstractContextManager[None]]  # entered around each change; raises where it is forbidden


def now() -> str:
    """Time of a record: UTC in ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], guard: Guard = nullcontext) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it into place within `guard`.

    Data reach the disk before the rename, so that a crash or a full disk leaves the previous
    file as it was. The temporary file is removed when anything goes wrong.

    Raises:
        OSError: the disk is full or the folder cannot be written, with the path; `path` is untouched.
    """
    with naming(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                write(stream)
                stream.flush()
                os.fchmod(stream.fileno(), 0o666 & ~_umask())
                os.fsync(stream.fileno())
            with guard():
                temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str, guard: Guard = nullcontext) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_atomically(path, lambda stream: stream.write(text.encode()), guard)


def write_json(path: Path, value: object, guard: Guard = nullcontext) -> None:
    """Write `value` as indented JSON, whole or not at all. NaN and infinities are refused."""
    write_text(path, json_text(value), guard)


def json_text(value: object) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError that names no file, as that of a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def read_json(path: Path) -> Any:
    """The value in a JSON file, or None if the file is missing or not valid JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):  # not UTF-8, not JSON, or JSON too deep
        return None


def append_json_line(path: Path, value: dict[str, Any], guard: Guard = nullcontext) -> None:
    """Append one JSON line within `guard` and flush it to disk."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
    with guard(), naming(path), path.open("a", encoding="utf-8") as stream:
        stream.write(line)
        stream.flush()
        os.fsync(stream.fileno())


def read_json_lines(
    path: Path, wrong: Callable[[Any], str | None] = lambda record: None
) -> tuple[list[dict[str, Any]], int]:
    """The whole records of a JSON-lines file, and the number of broken lines after them.

    Reading stops at the first line that is not a complete JSON object, or of which `wrong` gives a reason:
    what follows a broken line cannot be trusted to be in order. A missing file has no lines.
    """
    if not path.exists():
        return [], 0
    records: list[dict[str, Any]] = []
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return records, len(lines) - number
        if not isinstance(record, dict) or not line.endswith(b"\n") or wrong(record) is not None:
            return records, len(lines) - number
        records.append(record)
    return records, 0


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
