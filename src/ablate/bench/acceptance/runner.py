"""Running the steps: each in a process under its limit, its records kept whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ablate.bench.acceptance import page
from ablate.bench.acceptance.steps import Setting, Step, limit
from ablate.errors import UserError
from ablate.runs import environment
from ablate.store.files import read_json, read_json_lines, write_json, write_text

RECORD, PAGE, LOG = "acceptance.json", "acceptance.md", "acceptance.log"
DONE, CUT_OFF, FAILED = "done", "cut off", "failed"
POLL = 0.1  # seconds
KEEP = 10.0  # seconds between two records of a step that is under way
LAST_LINES = 15  # of a failed step's output that the record quotes


def run(
    steps: Sequence[Step], setting: Setting, *, again: bool = False, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run the steps that the folder does not have yet, and return the whole record.

    Args:
        steps: in their order.
        setting: device, size and folder; the folder is made if it is missing.
        again: whether steps that are done are run once more.
        say: receives one line when a step begins and one when it ends.

    Raises:
        UserError: The folder holds a record of another device, size or commit.
    """
    setting.folder.mkdir(parents=True, exist_ok=True)
    record = _record(setting, fresh=again)
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.name}"
        if not again and record["steps"].get(step.name, {}).get("state") == DONE:
            say(f"{head}: done before")
            continue
        say(f"{head}: {step.what} (at most {limit(step, setting.toy)} s)")
        found = _run_step(step, setting, partial(_keep, record, step, setting))
        _keep(record, step, setting, found)
        problem = "" if found["state"] == DONE else f": {found['problem']}"
        counted = f"{found['seconds']:.0f} s, {len(found['records'])} records"
        say(f"{head}: {found['state']} after {counted}{problem}")
    return record


def failures(record: dict[str, Any]) -> list[str]:
    """Steps that did not end as they should, and checks that did not pass, in words."""
    found = []
    for name, step in record["steps"].items():
        if step["state"] != DONE:
            found.append(f"{name}: {step['state']}, {step['problem']}")
        found += [
            f"{name}: {line['name']}: {line.get('detail') or 'not passed'}"
            for line in step["records"]
            if line.get("passed") is False
        ]
    return found


def _record(setting: Setting, fresh: bool) -> dict[str, Any]:
    """The folder's record, or a new one."""
    head = {
        "device": str(setting.device),
        "toy": setting.toy,
        "commit": environment.repository()["commit"],
    }
    found = read_json(setting.folder / RECORD)
    if isinstance(found, dict) and isinstance(found.get("steps"), dict):
        differing = [name for name in head if found.get(name) != head[name]]
        if not differing:
            return found
        if not fresh:
            was = ", ".join(f"{name} {found.get(name)}, now {head[name]}" for name in differing)
            raise UserError(
                f"{setting.folder / RECORD} is of another run: {was}",
                "use another --out, or --again to measure everything anew",
            )
    return {**head, "date": datetime.now(UTC).isoformat(timespec="seconds"), "steps": {}}


def _keep(record: dict[str, Any], step: Step, setting: Setting, found: dict[str, Any]) -> None:
    record["steps"][step.name] = found
    write_json(setting.folder / RECORD, record)
    write_text(setting.folder / PAGE, page.markdown(record))


def _run_step(step: Step, setting: Setting, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """State, seconds and records of a step; also while it is under way, to `keep`."""
    lines = setting.folder / f".{step.name}.jsonl"
    lines.unlink(missing_ok=True)
    allowed, begun = limit(step, setting.toy), time.monotonic()
    with (setting.folder / LOG).open("ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            _command(step, setting, lines),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=_environment(step, setting),
            start_new_session=True,  # it may have processes of its own, which end with it
        )
        kept = begun
        try:
            while process.poll() is None and time.monotonic() - begun < allowed:
                time.sleep(POLL)
                if time.monotonic() - kept > KEEP:
                    kept = time.monotonic()
                    keep(_found(lines, CUT_OFF, kept - begun, "the run ended while this step was under way"))
        finally:
            timed_out = process.poll() is None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - begun
    if timed_out:
        found = _found(lines, CUT_OFF, seconds, f"it took more than {allowed} s")
    elif process.returncode:
        said = _tail(setting.folder / LOG, start)
        found = _found(lines, FAILED, seconds, f"exit code {process.returncode}: {said}")
    else:
        found = _found(lines, DONE, seconds)
    lines.unlink(missing_ok=True)
    return found


def _command(step: Step, setting: Setting, lines: Path) -> list[str]:
    size = "toy" if setting.toy else "full"
    worker = [sys.executable, "-m", "ablate.bench.acceptance.worker"]
    return [*worker, step.name, str(setting.device), size, str(setting.folder), str(lines)]


def _environment(step: Step, setting: Setting) -> dict[str, str]:
    found = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if setting.device.type == "cpu" and step.interpreted:
        found["TRITON_INTERPRET"] = "1"
    if setting.toy:
        found["OMP_NUM_THREADS"] = "1"
    return found


def _found(lines: Path, state: str, seconds: float, problem: str = "") -> dict[str, Any]:
    records, _ = read_json_lines(lines)
    return {"state": state, "seconds": round(seconds, 1), "problem": problem, "records": records}


def _tail(log: Path, start: int) -> str:
    """The last lines that a step wrote."""
    with log.open("rb") as stream:
        stream.seek(start)
        written = stream.read().decode(errors="replace").strip().splitlines()
    return " | ".join(line.strip() for line in written[-LAST_LINES:] if line.strip())[-2000:]


def device(name: str | None) -> torch.device:
    """The named device; without a name the card, if there is one.

    Raises:
        UserError: cuda, and PyTorch finds no card.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no card here", "use --device cpu; see `ablate doctor`")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
