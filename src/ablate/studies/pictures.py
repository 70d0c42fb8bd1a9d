"""Test images of a run's data set, for the report: read without torch where the data set allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate import data
from ablate.data import Picture


def of_run(config: Mapping[str, Any], positions: Sequence[int]) -> list[Picture]:
    """Return test images of the data set of a run, by their places in the test split. Nothing is downloaded.

    Args:
        config: of the run, frozen.
        positions: places of the images.

    Raises:
        UserError: the data are not here, or are others.
    """
    root = (config.get("infra") or {}).get("data_root")
    return data.pictures(config["data"], positions, Path(str(root)) if root else None)
