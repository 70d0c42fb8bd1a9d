"""Several runs, one after the other, each computed by all processes that torchrun or srun started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablate.execution.execute import execute
from ablate.execution.outcome import SUPERSEDED, Outcome
from ablate.execution.place import Place
from ablate.execution.process_group import NO_MORE_RUNS, joined
from ablate.store.folder import FAILED


def run(
    place: Place,
    device: str,
    runs: Mapping[Path, dict[str, Any]],
    announce: Callable[[str], None],
    report: Callable[[str, Outcome], None] = lambda signature, outcome: None,
) -> dict[str, Outcome]:
    """Run them as rank 0, and return the outcomes by signature.

    The series ends with the first run that fails or is claimed by another process: the other ranks have
    ended with it.

    Args:
        place: of this process.
        device: infra.device.
        runs: configurations by run folder.
        announce: called with the signature at the start of each run.
        report: called with signature and outcome at the end of each run.
    """
    outcomes: dict[str, Outcome] = {}
    with joined(place, device) as group:
        for path, config in runs.items():
            announce(path.name)
            outcome = outcomes[path.name] = execute(path, config, group=group)
            report(path.name, outcome)
            if outcome.state in (FAILED, SUPERSEDED):
                return outcomes
        group.broadcast(NO_MORE_RUNS)
    return outcomes
