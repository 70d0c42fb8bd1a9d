"""Where the configuration groups lie; imports nothing heavy, so that every verb can ask."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ablate.errors import UserError


@cache
def conf_dir() -> Path:
    """The folder `conf/`: inside an installed package, else at the top of the repository."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent.parent / "conf"):
        if (candidate / "train.yaml").exists():
            return candidate
    raise UserError(f"no configuration folder beside {package}", "reinstall the package: `pip install .`")
