"""Environment of a run: commit and diff, versions, hardware. Environment variables are left out."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ablate import plugins
from ablate.store import code
from ablate.store.files import read_json

PACKAGES = ("ablate", "torch", "torchvision", "timm", "triton", "numpy", "hydra-core")
COPIED = "repository.json"  # beside a copy of the code: the result of `repository` when it was copied
DIFF_LIMIT = 1_000_000  # characters


def describe(
    device: str,
    threads: int,
    processes: int = 1,
    numerics: Mapping[str, Any] | None = None,
    code: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the contents of environment.json.

    Args:
        device: name of the card, or `cpu`.
        threads: of PyTorch.
        processes: that compute the run.
        numerics: the settings of `infra` that change rounding.
        code: digests of what computes the run, see `code_of`.
    """
    return {
        **repository(),
        "versions": {
            "python": platform.python_version(),
            **_versions(),
            **plugins.distributions(),
            **((code or {}).get("libraries") or {}),
        },
        "hardware": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": threads,
            "processes": processes,
            "device": device,
            "system": platform.platform(),
        },
        **({} if numerics is None else {"numerics": dict(numerics)}),
        **({} if code is None else {"code": {key: code[key] for key in code if key != "libraries"}}),
    }


def code_of(
    modules: Iterable[str], facts: Mapping[str, str], earlier: Mapping[str, Any] | None, *, resumes: bool
) -> dict[str, Any]:
    """Return the part `code` of environment.json.

    Args:
        modules: that the parts of the run are defined in.
        facts: digests of what else decides its figures, such as the data.
        earlier: environment.json of the attempt before; None if there is none.
        resumes: the run has a checkpoint. What changed since it was begun is listed under `resumed`: neither
            text computed the whole run.
    """
    found = code.collect(modules)
    digests = {**found.digests, **facts}
    resumed: list[str] = []
    if resumes and not code.known(earlier):
        resumed = [code.UNRECORDED]
    elif resumes and earlier is not None:
        then = earlier["code"].get("digests") or {}
        changed = {
            name for name in digests.keys() & then.keys() if not code.same(name, then[name], digests[name])
        }
        resumed = sorted(changed | set(earlier["code"].get("resumed") or ()))
    versions = _of_libraries(found.libraries)
    return {
        "digests": digests,
        **({"paths": found.paths} if found.paths else {}),
        **({"libraries": versions} if versions else {}),
        **({"resumed": resumed} if resumed else {}),
    }


def _of_libraries(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of the distributions that modules belong to; of this package's own see PACKAGES."""
    if not (names := set(names)):
        return {}
    owners = metadata.packages_distributions()
    distributions = {owner for name in names for owner in owners.get(name, ())} - set(PACKAGES)
    return {name: metadata.version(name) for name in sorted(distributions)}


def repository() -> dict[str, Any]:
    """Return commit and uncommitted changes of the checkout that this package is in or was copied from."""
    root = Path(__file__).resolve().parents[3]
    if isinstance(copied := read_json(root / COPIED), dict):
        return copied
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None, "diff": None}

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=30,
        )
        return done.stdout if done.returncode in (0, 1) else ""  # 1: `diff --no-index` found a difference

    try:
        commit = git("rev-parse", "HEAD").strip()
        if not commit:  # no commit yet, or git refuses the folder
            return {"commit": None, "dirty": None, "diff": None}
        diff = git("diff", "HEAD")
        for path in git("ls-files", "--others", "--exclude-standard", "src", "conf").splitlines():
            diff += git("diff", "--no-index", "--", os.devnull, path)  # a new operator is a change too
        return {"commit": commit, "dirty": bool(diff), "diff": diff[:DIFF_LIMIT]}
    except (OSError, subprocess.TimeoutExpired):
        return {"commit": None, "dirty": None, "diff": None}


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if (torch := sys.modules.get("torch")) is not None:
        found["torch"] = str(torch.__version__)  # with the build, which the metadata leave out
    return found


@cache
def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
