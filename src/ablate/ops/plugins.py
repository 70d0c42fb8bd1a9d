"""Modules of other people that register operators: entry points, an environment variable, a file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ablate.errors import UserError, place_of

GROUP = "ablate.operators"  # of entry points
PLUGINS = "ABLATE_OPERATORS"  # environment variable: comma-separated modules that register operators

Entries = dict[str, Any]  # of the registry, which the modules add to


def load(entries: Entries) -> dict[str, str]:
    """Import the modules of entry points and of the environment variable.

    Returns:
        Those that fail, each with the reason in one line. They register nothing.
    """
    broken: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        _try(f"the entry point {point.name} ({point.value})", point.load, entries, broken)
    for plugin in filter(None, (name.strip() for name in os.environ.get(PLUGINS, "").split(","))):
        _try(f"{plugin} (of {PLUGINS})", partial(importlib.import_module, plugin), entries, broken)
    return broken


def import_file(path: str, entries: Entries) -> str:
    """Import a Python file, if it is not imported yet, and return the name of its module.

    Files beside it can be imported from it.

    Raises:
        UserError: there is no such file, it fails, or its name is that of another module.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise UserError(f"no file {path}", "give the path of a Python file that registers an operator")
    loaded = (key for key, one in sys.modules.items() if getattr(one, "__file__", None) == str(file))
    if (name := next(loaded, None)) is not None:
        return name
    name = file.stem
    importlib.invalidate_caches()
    other = importlib.util.find_spec(name) if name.isidentifier() else None
    if not name.isidentifier() or (other is not None and other.origin != str(file)):
        raise UserError(
            f"{path} cannot be imported: {name!r} is not a name of a module, or that of another one",
            "rename the file",
        )
    sys.path.insert(0, str(file.parent))
    try:
        with _restored_on_failure(entries):
            importlib.import_module(name)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the file is somebody's own: it may raise anything
        sys.path.remove(str(file.parent))
        raise UserError(
            f"{path} cannot be imported: {type(error).__name__}: {error}{place_of(error)}", "correct it"
        ) from error
    return name


def _try(name: str, load: Callable[[], object], entries: Entries, broken: dict[str, str]) -> None:
    try:
        with _restored_on_failure(entries):
            load()
    except (Exception, SystemExit) as error:  # the module is somebody's own: it may raise anything
        first = (str(error).splitlines() or [""])[0]
        broken[name] = f"{type(error).__name__}: {first}{place_of(error)}"


@contextmanager
def _restored_on_failure(entries: Entries) -> Iterator[None]:
    before = dict(entries)
    try:
        yield
    except BaseException:
        entries.clear()
        entries.update(before)
        raise
