"""Commands and paths in messages: quoted for a shell, and as they are seen from the working directory."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

RUNS_DIR = "infra.runs_dir="
USUAL = Path("runs")  # folder of runs, unless --runs-dir or infra.runs_dir names another
MARKS = ("studies", ".launchers")  # what a folder of runs has and another folder called `runs` lacks


def default_runs_dir() -> Path:
    """Return `runs` in the working directory, or else in the nearest parent that has one.

    A folder of a parent counts if it is one of ours and belongs to the same user, so that a shared
    `/tmp/runs` is never written to by accident.
    """
    if USUAL.is_dir():
        return USUAL
    here = Path.cwd()
    return next((found for parent in here.parents if _ours(found := parent / USUAL)), USUAL)


def _ours(folder: Path) -> bool:
    try:
        mine = folder.stat().st_uid == os.getuid()
        return mine and any((folder / mark).is_dir() for mark in MARKS)
    except OSError:
        return False


def found_above(runs_dir: Path) -> str:
    """Describe a folder of runs that was found in a parent; empty for one in the working directory."""
    if not runs_dir.is_absolute():
        return ""
    return f"runs are in {runs_dir}, the nearest parent folder that has some"


def command(verb: str, *words: str, runs_dir: Path | None = None) -> str:
    """Return `ablate VERB …`, with --runs-dir unless the verb finds that folder from here without it."""
    parts = ["ablate", verb, *words]
    if runs_dir is not None and not is_default(runs_dir):
        parts += ["--runs-dir", shown(runs_dir)]
    return shlex.join(parts)


def train_again(recorded: str, runs_dir: Path) -> str:
    """Return the last `ablate train` of a study's record, with its folder of runs seen from here."""
    words = shlex.split(recorded.splitlines()[-1]) if recorded.strip() else ["ablate", "train"]
    words = [word for word in words if not word.startswith(RUNS_DIR)]
    if not is_default(runs_dir):
        words.append(train_override(Path(shown(runs_dir))))
    return shlex.join(words)


def train_override(runs_dir: Path) -> str:
    """Return the override of `ablate train` that names a folder of runs."""
    return RUNS_DIR + quoted_for_hydra(str(runs_dir))


def is_default(runs_dir: Path) -> bool:
    """True if the verbs look there without --runs-dir."""
    return runs_dir.resolve() == default_runs_dir().resolve()


def shown(path: Path) -> str:
    """A path as it is seen from the working directory, absolute outside of it."""
    seen = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
    return f"./{seen}" if seen.startswith("-") else seen  # else it would be an option


def quoted_for_hydra(value: str) -> str:
    """Return a text in the grammar of Hydra's overrides, where blanks, commas and brackets have meanings."""
    if all(character.isalnum() or character in "/._-" for character in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
