"""Packages to begin with: a small plug-in that works, with its test and its configuration.

`templates` has the files, in which NAME is replaced. May import what is registered; used by `cli.init`. Start
reading in `write`.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import tempfile
from pathlib import Path

from ablate.errors import UserError, nearest

TEMPLATES = Path(__file__).parent / "templates"
COMMON, SUFFIX, NAME, TRY = "common", ".txt", "NAME", "TRY"
TRIES = {  # a command that uses what the package has
    "operator": "ablate train op=NAME recipe=debug data=synthetic",
    "host": "ablate train host=NAME recipe=debug data=synthetic",
    "data": "ablate train data=NAME recipe=debug",
    "study": "ablate plan study=NAME --quick",
}
KINDS = tuple(TRIES)


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Write a package into a new folder `<folder>/<name>`, whole or not at all, and return its files.

    Args:
        kind: one of `KINDS`.
        name: of the package, and of what it registers.
        folder: that the new one will be in.

    Raises:
        UserError: a name that cannot be imported or is taken, a folder that is there, an unknown kind.
    """
    if kind not in KINDS:
        raise UserError(
            f"unknown kind {kind!r}", f"{nearest(kind, KINDS)} one of: {', '.join(KINDS)}".strip()
        )
    target = folder / name
    _check(kind, name, target)
    folder.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=folder, prefix=f".{name}."))
    try:
        for source in (TEMPLATES / COMMON, TEMPLATES / kind):
            for path in sorted(source.rglob(f"*{SUFFIX}")):
                relative = path.relative_to(source).as_posix().removesuffix(SUFFIX).replace(NAME, name)
                text = path.read_text(encoding="utf-8").replace(TRY, TRIES[kind]).replace(NAME, name)
                (making / relative).parent.mkdir(parents=True, exist_ok=True)
                (making / relative).write_text(text, encoding="utf-8")
        making.chmod(0o755)
        making.rename(target)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return sorted(path for path in target.rglob("*") if path.is_file())


def _check(kind: str, name: str, target: Path) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name) or keyword.iskeyword(name):
        raise UserError(
            f"{name!r} cannot be the name of a package",
            "use small letters, digits and '_', beginning with a letter: my_pooling",
        )
    if target.exists():
        raise UserError(f"{target} is there already", "choose another name or --folder")
    if importlib.util.find_spec(name) is not None:
        raise UserError(f"{name!r} is the name of a module that is installed", "choose another one")
    if name in _registered(kind):
        raise UserError(f"{kind} {name!r} is registered already", "choose another name")


def _registered(kind: str) -> list[str]:
    if kind == "data":
        from ablate import data

        return data.names()
    if kind == "study":
        from ablate.configuration import conf_dirs

        return [path.stem for folder in conf_dirs() for path in (folder / "study").glob("*.yaml")]
    from ablate import hosts, ops

    return ops.names() if kind == "operator" else hosts.names()
