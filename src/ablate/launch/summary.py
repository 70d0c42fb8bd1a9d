"""The last lines of a launch: how runs ended, where to read more, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from rich.console import Console

from ablate import commands
from ablate.execution.outcome import SUPERSEDED, Outcome
from ablate.launch.submission import Submission
from ablate.store import metrics
from ablate.store.folder import DAMAGED, FAILED, OUTPUT, PENDING, RunFolder


def sum_up(submission: Submission, outcomes: Mapping[str, Outcome], console: Console) -> None:
    """Print how runs ended and what to do next."""

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    name, runs_dir = submission.manifest.name, submission.runs_dir
    for signature, outcome in outcomes.items():
        if outcome.state in (FAILED, SUPERSEDED, DAMAGED) and not outcome.no_room:
            where = _evidence(submission.folder(signature), outcome.detail)
            say(f"{outcome.state}: {submission.title(signature)}: {outcome.detail}{where}")
    for signature in submission.failed:
        folder = submission.folder(signature)
        error = str(folder.status().get("error") or "")
        said = f"failed before: {submission.title(signature)}: {error}{_evidence(folder, error)}"
        say(f"{said}\n  → try again with infra.retry_failed=true")
    counts = Counter(outcome.state for outcome in outcomes.values())
    if counts:
        console.print(f"{name}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    waiting = submission.queued or counts[PENDING]
    full = next((outcome for outcome in outcomes.values() if outcome.no_room), None)
    if full is not None:
        left = len(submission.ready) - len(outcomes)
        say(f"stopped: {full.detail}" + (f"; {left} runs were not started" if left else ""))
        say(f"  → free space there, then: {commands.command('retry', name, runs_dir=runs_dir)}")
    elif len(submission.configs) > 1 or waiting:
        say(f"next: {commands.command('status' if waiting else 'report', name, runs_dir=runs_dir)}")
    else:
        (signature,) = submission.configs
        result = submission.folder(signature).result()
        figures = f"{metrics.of_run(submission.configs[signature]).test(result)}, " if result else ""
        say(f"{figures}run folder {commands.shown(runs_dir / signature)}")


def _evidence(folder: RunFolder, said: str) -> str:
    """Pointer to the file that says more about a failure than `said`; empty if there is none."""
    for path in (folder.error_path, folder.path / OUTPUT):
        with suppress(OSError):
            if path.read_text(encoding="utf-8", errors="replace").strip() not in ("", said):
                return f"\n  → {commands.shown(path)}"
    return ""
