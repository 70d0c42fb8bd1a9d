"""The lowest versions that pyproject.toml allows.

python tests/lowest.py             print them as constraints for pip
python tests/lowest.py --passed    record that the tests have passed with them (`make test-lowest`)
python tests/lowest.py --check     exit with 1 if the bounds have changed since
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
EXTRAS = ("dev", "docs")  # dev names docs
PASSED = Path(__file__).with_name("lowest.txt")


def lowest() -> list[str]:
    """Return `name==version` for each dependency of the project and of `EXTRAS`: its lower bound."""
    bounds = {}
    for requirement in _requirements():
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                bounds[requirement.name] = specifier.version
    return [f"{name}=={version}" for name, version in bounds.items()]


def declared() -> str:
    """Return every requirement as it is written, with the versions of Python: what a pass stands for."""
    python = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["requires-python"]
    return "\n".join([f"python{python}", *map(str, _requirements())]) + "\n"


def _requirements() -> list[Requirement]:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in EXTRAS)]
    return [Requirement(text) for group in groups for text in group]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--passed"]:
            PASSED.write_text(declared(), encoding="utf-8")
        case ["--check"]:
            sys.exit(not PASSED.exists() or PASSED.read_text(encoding="utf-8") != declared())
        case _:
            print(*lowest(), sep="\n")
