"""The lowest versions that pyproject.toml allows, as constraints for pip.

python tests/lowest.py > lowest.txt
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest(extras: tuple[str, ...] = ("dev",)) -> list[str]:
    """Return one `name==version` for each dependency of the project and of `extras`, its lower bound."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    named = [
        *project["dependencies"],
        *(one for extra in extras for one in project["optional-dependencies"][extra]),
    ]
    bounds = {}
    for requirement in map(Requirement, named):
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                bounds[requirement.name] = specifier.version
    return [f"{name}=={version}" for name, version in bounds.items()]


if __name__ == "__main__":
    print(*lowest(), sep="\n")
