"""The one exception for mistakes that the user can fix."""

from __future__ import annotations

import difflib
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

SOMEBODYS_OWN: set[Path] = set()  # folders of plug-ins that are installed
STANDARD = sysconfig.get_paths()["stdlib"]


class UserError(ValueError):
    """An error of the user: what was given, what was expected and the way out; shown without a traceback."""

    def __init__(self, problem: str, way_out: str = "") -> None:
        self.problem = problem
        self.way_out = way_out
        super().__init__(f"{problem}\n  → {way_out}" if way_out else problem)


class UnknownSettingError(UserError):
    """A setting that a configuration does not have: of one combination of a sweep, others may have it."""


class BrokenOperatorError(UserError):
    """An operator's own code raised while it was built: a mistake of one condition, not of the command."""


def place_of(error: BaseException) -> str:
    """Return file and line, in parentheses, of the last of somebody's own code that an exception passed.

    Empty if it passed none. Code of this package does not count, nor that of installed ones but plug-ins.
    """
    ours = Path(__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        installed = (
            path.is_relative_to(ours) or path.is_relative_to(STANDARD) or "site-packages" in path.parts
        )
        own = any(path.is_relative_to(folder) for folder in SOMEBODYS_OWN)
        if path.is_file() and (own or not installed):
            return f" ({path}:{frame.lineno})"
    return ""


def nearest(given: str, known: Iterable[str]) -> str:
    """'did you mean …?' for the closest known name, or an empty string."""
    match = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else ""


def unknown(what: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not among `known`."""
    known = sorted(known)
    listing = f"known: {', '.join(known)}"
    return UserError(f"unknown {what} {given!r}", f"{nearest(given, known)} {listing}".strip())


NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
NOT_NAMES = ("null", "true", "false", "nan", "inf")  # Hydra reads these as values


def require_name(what: str, name: object) -> None:
    """Refuse to register a name that no command line could choose, or that is unsafe in a path or a page.

    Raises:
        UserError: the name breaks the rule; says which.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower() in NOT_NAMES:
        raise UserError(
            f"{what} cannot be registered under the name {name!r}",
            "use at most 64 letters, digits, '_' and '-', beginning with a letter, and not "
            + ", ".join(NOT_NAMES),
        )
