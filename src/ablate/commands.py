"""Commands and paths in messages: quoted for a shell, and as they are seen from the working directory."""

from __future__ import annotations

import shlex
from pathlib import Path

RUNS_DIR = "infra.runs_dir="


def command(verb: str, *words: str, runs_dir: Path | None = None) -> str:
    """Return `ablate VERB …`, with --runs-dir unless that is `runs` in the working directory."""
    parts = ["ablate", verb, *words]
    if runs_dir is not None and not is_default(runs_dir):
        parts += ["--runs-dir", shown(runs_dir)]
    return shlex.join(parts)


def train_again(recorded: str, runs_dir: Path) -> str:
    """Return the last `ablate train` of a study's record, with its folder of runs seen from here."""
    words = shlex.split(recorded.splitlines()[-1]) if recorded.strip() else ["ablate", "train"]
    words = [word for word in words if not word.startswith(RUNS_DIR)]
    if not is_default(runs_dir):
        words.append(RUNS_DIR + _quoted_for_hydra(shown(runs_dir)))
    return shlex.join(words)


def is_default(runs_dir: Path) -> bool:
    """True if the verbs look there without --runs-dir."""
    return runs_dir.resolve() == Path("runs").resolve()


def shown(path: Path) -> str:
    """A path as it is seen from the working directory, absolute outside of it."""
    seen = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
    return f"./{seen}" if seen.startswith("-") else seen  # else it would be an option


def _quoted_for_hydra(value: str) -> str:
    """A value in the grammar of Hydra's overrides, where blanks, commas and brackets have meanings."""
    if all(character.isalnum() or character in "/._-" for character in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
