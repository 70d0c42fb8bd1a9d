"""`infra`: where and how runs are computed, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate import settings
from ablate.errors import UserError, unknown
from ablate.ops.kernels.choice import CHOICES
from ablate.runs.tracking import MODES


@dataclass(frozen=True)
class Infra:
    """Settings of `conf/infra`, the one part of the configuration outside a run's identity."""

    runs_dir: str
    device: str
    threads: int | None
    kernels: str
    workers: int
    data_root: str | None
    download: bool
    tracking: str
    wandb_project: str
    retry_failed: bool
    launcher: Mapping[str, Any]


@dataclass(frozen=True)
class Launcher:
    """Settings of the launchers."""

    workers: int | None


def read(config: Mapping[str, Any]) -> Infra:
    """Read and check `infra`.

    Raises:
        UserError: an unknown or missing setting, or a value that cannot be.
    """
    infra = settings.read(Infra, "infra", config)
    launcher = settings.read(Launcher, "infra.launcher", infra.launcher)
    if infra.tracking not in MODES:
        raise unknown("infra.tracking", infra.tracking, MODES)
    if infra.kernels not in CHOICES:
        raise unknown("infra.kernels", infra.kernels, CHOICES)
    for name, value, least in (
        ("threads", infra.threads, 1),
        ("launcher.workers", launcher.workers, 1),
        ("workers", infra.workers, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"infra.{name}={value}", f"use {least} or more, or leave it at its default")
    return infra
