"""A worker process: run folders in by standard input, outcomes out by standard output, a line each.

Started by the `local` launcher as `python -m ablate.execution.worker PROCESS`, with its own process
number. What a run prints goes to output.log in its folder. PyTorch is imported once for all runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from ablate.execution.execute import SUPERSEDED, Outcome, execute, failure
from ablate.execution.interruption import CLAIM_LOST, INTERRUPTION, stoppable
from ablate.store.damage import DamagedError
from ablate.store.folder import DAMAGED, OUTPUT, RunFolder


def main() -> None:
    """Serve until standard input ends, or the launcher dies: then the run at work is interrupted.

    A process that lost its claim says so and ends: where it stood still, it is not known what else it missed.
    """
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    with stoppable() as stop:
        for line in sys.stdin:
            if stop():
                sys.exit(INTERRUPTION)
            try:
                outcome = _outcome(RunFolder(Path(line.rstrip("\n"))))
            except KeyboardInterrupt:
                sys.exit(INTERRUPTION)
            answers.write(json.dumps(asdict(outcome)) + "\n")
            if outcome.state == SUPERSEDED:
                sys.exit(CLAIM_LOST)


def _outcome(folder: RunFolder) -> Outcome:
    try:
        log = os.open(folder.path / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        return failure(error, folder.path)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    from ablate.training.progress import PlainReporter

    try:
        config = folder.config()
    except DamagedError as error:
        return Outcome(DAMAGED, str(error))
    return execute(folder.path, config, PlainReporter())


def _end_with(launcher: int) -> None:
    """SIGTERM to this process once its parent is gone: an orphan would train on unseen."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
