"""Declare that the code of today computes the same bits as that of an earlier commit.

    python -m tests.equal_code COMMIT

adds to src/ablate/store/equal_code.json, for every module that computes runs and has another text than in
COMMIT, that digest beside today's: runs of that commit are then not stale. Use it only after the tests that
pin figures pass without a change (tests/test_pinned.py, tests/tasks, tests/training), and look at what it
prints: a module whose change does alter figures must be taken out of the file again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ablate.store import code
from ablate.store.files import write_text

SOURCES = Path("src") / "ablate"


def main(commit: str) -> None:
    """Compare the modules with those of a commit, and add what differs."""
    equal: dict[str, list[list[str]]] = json.loads(code.EQUAL.read_text(encoding="utf-8"))
    for path in sorted(SOURCES.rglob("*.py")):
        parts = path.relative_to("src").with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        computes = code._counts(name) or name in (code.INITIAL, code.PRETRAINED)
        if not computes or (before := _digest_in(commit, path)) is None:
            continue
        now = code.digest_of(path)
        if now is not None and not code.same(name, before, now):
            equal[name] = _joined(equal.get(name, []), before, now)
            print(f"{name}: {before} = {now}")
    text = json.dumps(dict(sorted(equal.items())), indent=1)
    write_text(code.EQUAL, f"{text}\n")


def _digest_in(commit: str, path: Path) -> str | None:
    found = subprocess.run(["git", "show", f"{commit}:{path}"], capture_output=True, text=True, check=False)
    return code.digest_of_text(found.stdout) if found.returncode == 0 else None


def _joined(groups: list[list[str]], before: str, now: str) -> list[list[str]]:
    """Groups in which two digests count as one."""
    alike = [group for group in groups if {before, now} & set(group)]
    others = [group for group in groups if group not in alike]
    return [*others, list(dict.fromkeys([digest for group in alike for digest in group] + [before, now]))]


if __name__ == "__main__":
    main(*sys.argv[1:])
