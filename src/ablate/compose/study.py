"""`study`: what a sweep is for, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.configuration import read_settings
from ablate.errors import UserError, unknown

METRICS = ("test_top1", "test_top5", "test_loss", "validation_top1", "validation_loss", "throughput")


@dataclass(frozen=True)
class Study:
    """Settings of the `study` node; no part of a run's identity."""

    name: str | None
    question: str | None
    factors: tuple[str, ...] | None
    baseline: Mapping[str, Any] | None
    paths: Mapping[str, Any] | None
    metric: str

    def check_paths(self) -> None:
        """Refuse a path that is no list of two conditions or more.

        Raises:
            UserError: says what was given.
        """
        for name, steps in (self.paths or {}).items():
            if not isinstance(steps, Sequence) or isinstance(steps, str) or len(steps) < 2:
                raise UserError(
                    f"study.paths.{name}={steps!r} is no list of conditions",
                    "give two or more, from the first to the last: [lsa, lsa_neighborhood, elsa]",
                )

    def check_baseline(self, factors: Sequence[str]) -> None:
        """Refuse a baseline that names what the study does not vary.

        Raises:
            UserError: names the nearest factor.
        """
        for factor in self.baseline or {}:
            if factor not in factors:
                raise unknown("factor of study.baseline:", str(factor), factors)


def read(config: Mapping[str, Any]) -> Study:
    """Read and check `study`.

    Raises:
        UserError: an unknown or missing setting, or a value that cannot be.
    """
    study = read_settings(Study, "study", config)
    if study.metric not in METRICS:
        raise unknown("study.metric", study.metric, METRICS)
    return study
