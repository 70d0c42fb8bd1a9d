"""The code at submission: its state, and a copy that jobs run from."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ablate import plugins
from ablate.configuration import conf_dir
from ablate.errors import UserError
from ablate.execution import environment
from ablate.store.files import write_json

HOME = Path("~/.cache/ablate/snapshots")
ORIGINS = "origins.json"


def state(repository: dict[str, Any]) -> dict[str, Any]:
    """State of the code for comparisons: commit, presence of uncommitted changes, and their digest."""
    diff = repository["diff"]
    digest = hashlib.sha256(diff.encode()).hexdigest()[:12] if diff else None
    return {"commit": repository["commit"], "dirty": repository["dirty"], "changes": digest}


class Snapshot(NamedTuple):
    """A copy of the code.

    Attributes:
        path: folders to put first into PYTHONPATH.
        origins: a JSON file, from paths of plug-ins' files to those of their copies.
    """

    path: list[Path]
    origins: Path


def take() -> Snapshot:
    """Copy this package, Hydra's entry, `conf` and plug-ins into the user's cache, once for every state.

    Raises:
        UserError: others could write there.
    """
    package = Path(__file__).resolve().parents[2]
    parts = {"src/ablate": package, "src/hydra_plugins/ablate_launchers": _entry()}
    if not conf_dir().resolve().is_relative_to(package):
        parts["conf"] = conf_dir()
    others = _plugins()
    parts |= others
    home = HOME.expanduser()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(home)
    repository = environment.repository()
    named = json.dumps({name: str(source) for name, source in others.items()})
    place = home / _digest(parts, json.dumps(repository) + named)
    if not place.exists():
        making = Path(tempfile.mkdtemp(dir=home, prefix=f".{place.name}."))
        for name, source in parts.items():  # with the times of files: Numba's cache stays valid
            if source.is_dir():
                shutil.copytree(source, making / name)
            else:
                (making / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, making / name)
        write_json(making / ORIGINS, _origins(others, place))
        write_json(making / environment.COPIED, repository)
        try:
            making.replace(place)
        except OSError:  # another launcher was faster
            shutil.rmtree(making)
    folders = dict.fromkeys(
        place.joinpath(*Path(name).parts[:2]) for name in others if not name.startswith("src/")
    )
    return Snapshot([place / "src", *folders], place / ORIGINS)


def _plugins() -> dict[str, Path]:
    """Return what plug-ins consist of, by its place in a copy.

    A package is copied whole. Of a module in no package, the files beside it that it imports are, with its
    `conf`.
    """
    found: dict[str, Path] = {}
    folders: list[Path] = []
    for module in plugins.modules():
        top = module.partition(".")[0]
        file = getattr(sys.modules.get(top), "__file__", None)
        if file is None:
            continue
        path = Path(file).resolve()
        if path.name == "__init__.py":
            found[f"src/{top}"] = path.parent
            continue
        if path.parent not in folders:
            folders.append(path.parent)
        into = f"plugins/{folders.index(path.parent)}"
        found |= {f"{into}/{one.relative_to(path.parent)}": one for one in _beside(path, set())}
        if path.parent / plugins.CONF in plugins.conf_dirs():
            found[f"{into}/{plugins.CONF}"] = path.parent / plugins.CONF
    return found


def _beside(path: Path, known: set[Path]) -> set[Path]:
    """Return a file, and the files and packages in its folder that it imports, directly or not."""
    known.add(path)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    for name in names:
        if (file := path.with_name(f"{name}.py")).is_file() and file not in known:
            _beside(file, known)
        elif (path.with_name(name) / "__init__.py").is_file():
            known.add(path.with_name(name))
    return known


def _origins(parts: dict[str, Path], place: Path) -> dict[str, str]:
    """Return the paths of the copies of Python files, by those of the files."""
    found = {}
    for name, source in parts.items():
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            found[str(path)] = (
                str(place / name / path.relative_to(source)) if source.is_dir() else str(place / name)
            )
    return found


def _entry() -> Path:
    """Find the folder of Hydra's entry without importing it, which would import Hydra."""
    found = importlib.util.find_spec("hydra_plugins.ablate_launchers")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).resolve().parent


def _digest(parts: dict[str, Path], repository: str) -> str:
    found = hashlib.sha256(repository.encode())
    for name, source in parts.items():
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
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
