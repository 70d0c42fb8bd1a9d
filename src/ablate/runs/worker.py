"""A worker process: run folders in by standard input, outcomes out by standard output, a line each.

Started by the `local` launcher as `python -m ablate.runs.worker`. What a run prints goes to
output.log in its folder. PyTorch is imported once for all runs of the worker.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from ablate.runs.execute import INTERRUPTION, execute
from ablate.runs.folder import RunFolder


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    for line in sys.stdin:
        folder = RunFolder(Path(line.strip()))
        log = os.open(folder.path / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        from ablate.training.progress import PlainReporter

        try:
            outcome = execute(folder.path, folder.config(), PlainReporter())
        except KeyboardInterrupt:
            sys.exit(INTERRUPTION)
        answers.write(json.dumps(asdict(outcome)) + "\n")


if __name__ == "__main__":
    main()
