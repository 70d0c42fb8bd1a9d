"""Source files as pages of the site: what a link to a file of the repository leads to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from generate import ROOT

SHOWN = {".py": "python", ".yaml": "yaml", ".csv": "text", ".md": "markdown", ".toml": "toml"}
FOLDERS = ("src", "conf", "notebooks", "analysis")  # all of their files have a page
_linked: set[str] = set()  # others, that some page links to


def link(path: str, text: str | None = None, *, depth: int) -> str:
    """Return a link to the page of a file of the repository.

    Args:
        path: the file, from the root of the repository.
        text: of the link; the path if None.
        depth: folders between docs/generated and the page that links.
    """
    label = f"<code>{escape(path)}</code>" if text is None else text
    label = label.replace("_", r"\_")  # `__init__` is not bold
    if not (ROOT / path).is_file():
        return label
    _linked.add(path)
    up = "../" * (depth + 1)
    return f'<a href="{up}files/{path}.html">{label}</a>'


@cache
def _all() -> tuple[str, ...]:
    paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SHOWN)
    return tuple(sorted(path.relative_to(ROOT).as_posix() for path in paths))


def pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Give Sphinx a page for every file, outside the search."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    colored = os.environ.get("ABLATE_DOCS_EXECUTE") != "off"  # the test needs the pages and not their colours
    formatter = HtmlFormatter(linenos="inline", wrapcode=True)
    for path in sorted({*_all(), *_linked}):
        source = (ROOT / path).read_text(encoding="utf-8")
        lexer = get_lexer_by_name(SHOWN.get(Path(path).suffix, "text") if colored else "text")
        code = highlight(source, lexer, formatter)
        body = f'<h1><code>{escape(path)}</code></h1><div class="source">{code}</div>'
        yield f"files/{path}", {"title": path, "body": body, "parents": []}, "page.html"
