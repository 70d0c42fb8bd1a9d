"""Child processes of this package: started with the same interpreter, ended with their parent."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

SAFE_PATH = ["-P"] if sys.flags.safe_path else []  # as in this process: no code from the working directory


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module of this package, given this process's number first."""
    return [sys.executable, *SAFE_PATH, "-m", module, str(os.getpid()), *arguments]


def when_parent_ends(parent: int, act: Callable[[], object]) -> None:
    """Call `act` from a thread once the process `parent` is not the parent of this one any more."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        act()

    threading.Thread(target=watch, daemon=True).start()
