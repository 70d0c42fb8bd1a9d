"""`study`: question and design of a sweep, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.configuration import read_settings
from ablate.errors import UserError, unknown
from ablate.store import metrics
from ablate.store.manifest import is_margin

REFUSE, SKIP = "refuse", "skip"
IMPOSSIBLE = (REFUSE, SKIP)  # what to do about combinations that cannot exist


@dataclass(frozen=True)
class Study:
    """Settings of the `study` node, which are outside a run's identity."""

    name: str | None
    question: str | None
    factors: tuple[str, ...] | None
    baseline: Mapping[str, Any] | None
    paths: Mapping[str, Any] | None
    metric: str | None
    margin: float | None = None  # configurations that were frozen earlier have none, nor cells
    exclude: tuple[str, ...] | None = None
    only: tuple[str, ...] | None = None
    impossible: str | None = None
    zip: tuple[str, ...] | None = None

    def check_paths(self) -> None:
        """Refuse a path that is not a list of at least two conditions.

        Raises:
            UserError: says what was given.
        """
        for name, steps in (self.paths or {}).items():
            if not isinstance(steps, Sequence) or isinstance(steps, str) or len(steps) < 2:
                raise UserError(
                    f"study.paths.{name}={steps!r} is not a list of conditions",
                    "give two or more, from the first to the last: [lsa, lsa_neighborhood, elsa]",
                )

    def check_baseline(self, factors: Sequence[str]) -> None:
        """Refuse a baseline with a factor that the study does not vary.

        Raises:
            UserError: names the nearest factor.
        """
        for factor in self.baseline or {}:
            if factor not in factors:
                raise unknown("factor of study.baseline:", str(factor), factors)


def read(config: Mapping[str, Any]) -> Study:
    """Read and check `study`.

    Raises:
        UserError: an unknown or missing setting, or an invalid value.
    """
    study = read_settings(Study, "study", config)
    if (study.impossible or REFUSE) not in IMPOSSIBLE:
        raise unknown("study.impossible", str(study.impossible), IMPOSSIBLE)
    if study.metric is not None and study.metric not in (known := metrics.columns()):
        raise unknown("study.metric", study.metric, known)
    if study.margin is not None and not is_margin(study.margin):
        raise UserError(
            f"study.margin={study.margin:g} is not a positive number",
            "give the largest negligible difference, in the unit of the metric: study.margin=0.5",
        )
    return study
