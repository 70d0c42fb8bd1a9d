"""One attempt at a step: its process under a limit, and its records, which are kept however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate.bench.acceptance import records
from ablate.bench.acceptance.steps import Setting, Step, limit
from ablate.store.files import append_json_line, read_json_lines

LOG = "acceptance.log"
DONE, CUT_OFF, FAILED = "done", "cut off", "failed"
ENDED = "the run ended while this step was under way"
POLL = 0.1  # seconds
KEEP = 10.0  # seconds between two writes of a step that is under way
LAST_LINES = 15  # of a failed step's output that the record quotes


class Attempt:
    """One attempt at a step: its process, and the file to which that appends its records.

    The file begins with what an earlier attempt has measured, which the process leaves out.
    """

    def __init__(self, step: Step, setting: Setting, earlier: list[records.Record], again: bool) -> None:
        self.step, self.setting = step, setting
        self.lines = setting.folder / f".{step.name}.jsonl"
        left, _ = read_json_lines(self.lines)  # of a runner that was killed
        self.earlier = records.merged(earlier, left)
        self.lines.unlink(missing_ok=True)
        for record in () if again else self.earlier:
            if records.good(record):
                append_json_line(self.lines, record)
        self.begun = time.monotonic()

    def run(self, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Return state, seconds and records; pass them to `keep` now and then, and at any end."""
        state, problem, process = CUT_OFF, ENDED, None
        allowed = limit(self.step, self.setting.toy, self.setting.factor)
        with (self.setting.folder / LOG).open("ab") as log:
            start = log.tell()
            try:
                process = subprocess.Popen(
                    command(self.step, self.setting, self.lines),
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env=_environment(self.step, self.setting),
                    start_new_session=True,  # it may have processes of its own, which end with it
                )
                self._follow(process, allowed, keep)
                if process.poll() is None:
                    problem = f"it took more than {allowed} s"
                elif process.returncode:
                    said = _tail(self.setting.folder / LOG, start)
                    state, problem = FAILED, f"exit code {process.returncode}: {said}"
                else:
                    state, problem = DONE, ""
            finally:
                if process is not None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                found = self._found(state, problem)
                keep(found)
                self.lines.unlink(missing_ok=True)
        return found

    def _follow(
        self, process: subprocess.Popen[bytes], allowed: float, keep: Callable[[dict[str, Any]], None]
    ) -> None:
        """Wait for the end of the process or of its time."""
        kept = self.begun
        while process.poll() is None and time.monotonic() - self.begun < allowed:
            time.sleep(POLL)
            if time.monotonic() - kept > KEEP:
                kept = time.monotonic()
                keep(self._found(CUT_OFF, ENDED))

    def _found(self, state: str, problem: str) -> dict[str, Any]:
        """Return state and records of this attempt; a repeat that fails drops nothing measured before."""
        measured, _ = read_json_lines(self.lines)
        found = records.merged(measured) if state == DONE else records.merged(self.earlier, measured)
        seconds = round(time.monotonic() - self.begun, 1)
        return {"state": state, "seconds": seconds, "problem": problem, "records": found}


def command(step: Step, setting: Setting, lines: Path) -> list[str]:
    """Return the command of a step's process, see `worker`."""
    size = "toy" if setting.toy else "full"
    worker = [sys.executable, "-P", "-m", "ablate.bench.acceptance.worker"]
    given = [step.name, setting.device, size, setting.factor, setting.folder, lines, os.getpid()]
    return [*worker, *(str(argument) for argument in given)]


def _environment(step: Step, setting: Setting) -> dict[str, str]:
    found = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if setting.device.type == "cpu" and step.interpreted:
        found["TRITON_INTERPRET"] = "1"
    if setting.toy:
        found["OMP_NUM_THREADS"] = "1"
    return found


def _tail(log: Path, start: int) -> str:
    """The last lines that a step wrote."""
    with log.open("rb") as stream:
        stream.seek(start)
        written = stream.read().decode(errors="replace").strip().splitlines()
    return " | ".join(line.strip() for line in written[-LAST_LINES:] if line.strip())[-2000:]
