"""Step `tests`: the tests that need a card, from the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ablate
from ablate.bench.acceptance.steps import Setting

PROCESSES = 12  # of pytest, at most: each compiles on a core of its own
MARK = re.compile(r"^\s*(@pytest\.mark\.gpu\b|pytestmark\s*=.*\bpytest\.mark\.gpu\b)", re.MULTILINE)
NOTHING_LEFT = 5  # pytest's exit code where no test is selected


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """One record for each test as it ends; nothing but a note where there is no checkout or no pytest."""
    root = Path(ablate.__file__).resolve().parents[2]
    if not (files := marked(root)) or find_spec("pytest") is None:
        missing = "pytest is not installed" if files else f"no tests beside the package in {root}"
        yield {"name": "tests", "passed": None, "detail": missing}
        return
    passed = [name for name, _ in setting.known if name.startswith("tests/")]
    command = [*pytest_command(files, 2 if setting.toy else PROCESSES), *_without(passed)]
    process = subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    seen = len(passed)
    for record in outcomes(process.stdout):
        seen += 1
        yield record
    code = process.wait()
    good = code == 0 or (code == NOTHING_LEFT and bool(passed))
    yield {"name": "all", "passed": good and seen > 0, "detail": f"{seen} tests, pytest's exit code {code}"}


def marked(root: Path) -> list[str]:
    """Return the test modules of a checkout with tests for a card: others may need what is not installed."""
    files = sorted((root / "tests").rglob("test_*.py"))
    return [str(file.relative_to(root)) for file in files if MARK.search(file.read_text(encoding="utf-8"))]


def pytest_command(files: Iterable[str], processes: int) -> list[str]:
    """Return the command that runs the tests for a card; on several cores where pytest-xdist is installed."""
    spread = ["-n", str(min(processes, os.cpu_count() or 1))] if find_spec("xdist") is not None else []
    options = ["-v", "--color=no", "-p", "no:cacheprovider", "-m", "gpu"]
    return [sys.executable, "-P", "-m", "pytest", *options, *spread, *files]


def _without(passed: Iterable[str]) -> list[str]:
    """Options that leave out tests. Pytest compares beginnings; one without `[…]` may begin another."""
    return [f"--deselect={name}" for name in passed if name.endswith("]")]


def outcomes(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """One record for each test, and for each module that cannot be imported, from pytest's output."""
    module = None
    for line in lines:
        print(line, end="", flush=True)
        if found := re.match(r"_+ ERROR collecting (\S+) _+$", line.rstrip()):
            module = found.group(1)
        elif module is not None and line.startswith("E  "):
            yield {"name": module, "passed": False, "detail": f"cannot be imported: {line[1:].strip()}"}
            module = None
        elif line.startswith(("FAILED", "ERROR", "SKIPPED")):  # summary lines repeat earlier ones
            continue
        elif (outcome := _outcome(line)) is not None:
            yield outcome


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
    return {"name": name.strip(), "passed": passed, "detail": outcome.lower()}
