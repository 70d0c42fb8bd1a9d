"""`hydra/launcher=inline`: one run after the other in this process."""

from __future__ import annotations

from rich.console import Console

from ablate.execution import series
from ablate.execution.execute import execute
from ablate.execution.outcome import Outcome
from ablate.execution.place import from_environment
from ablate.launch.submission import Submission


def launch(submission: Submission, console: Console) -> dict[str, Outcome]:
    """Run what is ready, in this process and in the other ranks that torchrun or srun started."""

    def announce(signature: str) -> None:
        if len(submission.ready) > 1:
            number = submission.ready.index(signature) + 1
            console.print(f"[{number}/{len(submission.ready)}] {submission.title(signature)}", markup=False)

    runs = {submission.runs_dir / signature: submission.configs[signature] for signature in submission.ready}
    if (place := from_environment()) is not None:
        return series.run(place, submission.infra["device"], runs, announce)
    outcomes = {}
    for path, config in runs.items():
        announce(path.name)
        outcomes[path.name] = outcome = execute(path, config)
        if outcome.no_room:  # the next run would fail for the same reason
            break
    return outcomes
