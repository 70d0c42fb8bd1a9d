"""Parts of Markdown that several generated pages have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """Return a Markdown table; `align` has a letter per column, `r` for columns of numbers."""
    marks = ["--:" if mark == "r" else "---" for mark in align.ljust(len(head), "l")]
    lines = [list(head), marks, *([cell(text) for text in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(text: str) -> str:
    """Return text as one cell of a table."""
    return text.replace("|", r"\|").replace("\n", " ")


def plain(text: str) -> str:
    """Return plain text as Markdown: nothing in it is markup but `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*_<\[\]])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def fence(text: str, language: str = "text") -> str:
    """Return a block of code."""
    return f"```{language}\n{text}\n```"


def toctree(names: Iterable[str], *options: str) -> str:
    """Return a MyST toctree over documents."""
    return "\n".join(["```{toctree}", *(f":{option}:" for option in options), "", *names, "```"])
