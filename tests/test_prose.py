"""The prose of the project: docstrings begin with what they return or do, and plain words are used."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
CODE = [path for folder in ("src", "analysis", "docs") for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [
    *(path for path in sorted(ROOT.glob("*.md")) if path.name != "CHANGELOG.md"),
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if "generated" not in path.parts),
    *sorted((ROOT / "conf").rglob("*.yaml")),
]
DANGLING = ("What", "Where", "Whether", "Who", "Which", "How", "Likewise", "The same")
WORDS = {  # instead of → write
    r"in the place of": "instead of",
    r"\ba (row|line) an? \w+": "one row per …, one line per …",
    r"\bgo(es)? on\b": "resumes, continues",
    r"\bmend(s|ed)?\b": "fix",
    r"\b(handed|hands) (in|over|on)\b": "submitted, passed",
    r"\bhand(ing)? in\b": "submit",
    r"\basked for\b": "requested",
    r"\btold\b|\btells\b": "received, sends, reports, or the operation",
    r"\bmakes of\b|\bcomes? of\b|\bcan be had\b|\bare had\b": "computes, results from, are available",
    r"\bof no \w+": "not of a …",
    r"\bbesides\b|\bthereby\b|\bwhoever\b": "also",
    r"\bstands? (in|at|for|beside|there|as|behind|below|around)\b": "is",
    r"\bthe truth\b": "the authoritative record, the reference",
    r"\btaken (up|over|together)\b": "resumed, claimed, combined",
    r"\b[Pp]roven?\b|\b[Pp]roof\b": "checked, self-check",
}


def test_docstrings_begin_with_what_they_return_or_do() -> None:
    found = []
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = (ast.get_docstring(node) or "").splitlines()[:1]
                if first and first[0].split(" ")[0].rstrip(",:") in DANGLING:
                    line = getattr(node, "lineno", 1)
                    found.append(f"{path.relative_to(ROOT)}:{line} {first[0]}")
    assert not found, "\n".join(found)


def test_plain_words_are_used() -> None:
    found = []
    for path in (*CODE, *PAGES):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for pattern, instead in WORDS.items():
                if match := re.search(pattern, line):
                    found.append(f"{path.relative_to(ROOT)}:{number} {match[0]!r} → {instead}")
    assert not found, "\n".join(found)
