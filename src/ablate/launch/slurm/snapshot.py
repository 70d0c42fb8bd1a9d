"""The code at submission: its state, and a copy that jobs run from."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from ablate.configuration import conf_dir
from ablate.errors import UserError
from ablate.execution import environment
from ablate.store.files import write_json

HOME = Path("~/.cache/ablate/snapshots")


def state(repository: dict[str, Any]) -> dict[str, Any]:
    """State of the code for comparisons: commit, presence of uncommitted changes, and their digest."""
    diff = repository["diff"]
    digest = hashlib.sha256(diff.encode()).hexdigest()[:12] if diff else None
    return {"commit": repository["commit"], "dirty": repository["dirty"], "changes": digest}


def take() -> Path:
    """Copy this package, Hydra's entry and `conf` into the user's own cache, once for every state of them.

    Returns:
        Folder to put first into PYTHONPATH.

    Raises:
        UserError: others could write there.
    """
    package = Path(__file__).resolve().parents[2]
    parts = {"src/ablate": package, "src/hydra_plugins/ablate_launchers": _entry()}
    if not conf_dir().resolve().is_relative_to(package):
        parts["conf"] = conf_dir()
    home = HOME.expanduser()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(home)
    repository = environment.repository()
    place = home / _digest(parts, json.dumps(repository))
    if not place.exists():
        making = Path(tempfile.mkdtemp(dir=home, prefix=f".{place.name}."))
        for name, source in parts.items():
            shutil.copytree(source, making / name)  # with the times of files: Numba's cache stays valid
        write_json(making / environment.COPIED, repository)
        try:
            making.replace(place)
        except OSError:  # another launcher was faster
            shutil.rmtree(making)
    return place / "src"


def _entry() -> Path:
    """Find the folder of Hydra's entry without importing it, which would import Hydra."""
    found = importlib.util.find_spec("hydra_plugins.ablate_launchers")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).resolve().parent


def _digest(parts: dict[str, Path], repository: str) -> str:
    found = hashlib.sha256(repository.encode())
    for name, source in parts.items():
        for path in sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(f"{name}/{path.relative_to(source)}".encode())
                found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _check_private(folder: Path) -> None:
    """Refuse a folder that another user could put code into.

    Raises:
        UserError: names the folder that is open.
    """
    for place in (folder, *folder.resolve().parents):
        mode = place.stat().st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
            raise UserError(
                f"others can write into {place}: code must not be run from below it",
                f"chmod go-w {place}, or leave out infra.launcher.snapshot=true",
            )
