"""A worker process: reads run folders from standard input, writes outcomes to standard output, one per line.

Started by the `local` launcher as `python -m ablate.execution.worker PROCESS`, with its own process
number. What a run prints goes to output.log in its folder. PyTorch is imported once for all runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from ablate import plugins
from ablate.execution import child
from ablate.execution.execute import execute
from ablate.execution.interruption import CLAIM_LOST, INTERRUPTION, stoppable
from ablate.execution.outcome import SUPERSEDED, Outcome, failure
from ablate.store.damage import DamagedError
from ablate.store.folder import DAMAGED, OUTPUT, RunFolder


def main() -> None:
    """Serve until standard input ends, or the launcher dies: then the current run is interrupted.

    A process that lost a claim reports it and ends: it stood still, and may have missed other things too.
    """
    # an orphan would train on unseen
    child.when_parent_ends(int(sys.argv[1]), lambda: os.kill(os.getpid(), signal.SIGTERM))
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
    for line in plugins.lines_of_broken():
        print(line, flush=True)
    from ablate.training.progress import PlainReporter

    try:
        config = folder.config()
    except DamagedError as error:
        return Outcome(DAMAGED, str(error))
    return execute(folder.path, config, PlainReporter())


if __name__ == "__main__":
    main()
