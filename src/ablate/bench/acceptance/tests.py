"""Step `tests`: the tests that need a card, from the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ablate
from ablate.bench.acceptance.steps import Setting

PROCESSES = 12  # of pytest, at most: each compiles on a core of its own
TOY = "test_verdicts_are_of_the_card or test_cases_reach"


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """One record for each test as it ends; nothing but a note where there is no checkout or no pytest."""
    root = Path(ablate.__file__).resolve().parents[2]
    if not (root / "tests" / "kernels").is_dir():
        yield {"name": "tests", "passed": None, "detail": f"no tests beside the package in {root}"}
        return
    processes = min(PROCESSES, os.cpu_count() or 1)
    chosen = (
        ["tests/kernels/test_selfcheck.py", "-k", TOY] if setting.toy else ["-m", "gpu", "-n", str(processes)]
    )
    command = [sys.executable, "-m", "pytest", "-v", "--color=no", "-p", "no:cacheprovider", *chosen]
    process = subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(("FAILED", "ERROR", "SKIPPED")):  # the summary: told before
            continue
        if (outcome := _outcome(line)) is not None:
            seen += 1
            yield outcome
    code = process.wait()
    detail = f"{seen} tests, pytest's exit code {code}"
    yield {"name": "all", "passed": code == 0 and seen > 0, "detail": detail}


def _outcome(line: str) -> dict[str, Any] | None:
    """The test and its outcome in a line of pytest, alone ('tests/… PASSED') or spread over processes."""
    spread = re.search(r"^\[gw\d+\].*?\b(PASSED|FAILED|ERROR|SKIPPED)\b (tests/\S.*)$", line.rstrip())
    alone = re.search(r"^(tests/\S.*?) (PASSED|FAILED|ERROR|SKIPPED)\b", line)
    if spread is not None:
        outcome, name = spread.groups()
    elif alone is not None:
        name, outcome = alone.groups()
    else:
        return None
    passed = {"PASSED": True, "SKIPPED": None}.get(outcome, False)
    return {"name": name, "passed": passed, "detail": outcome.lower()}
