"""Pages that come from the code: written into docs/generated before Sphinx reads its sources.

Each module has a function `write(pages)`: `zoo` (a page per operator, with pictures from `pictures`),
`configuration` (from the comments in conf), `cli` (from the parser), `api` (public packages), `rooms`
(imports between packages, and the tour of the files), `tutorials` (notebooks), `records` and `benchmarks`.
`files` shows source files as pages of the site, `docstrings` makes docstrings reStructuredText. This package
is a Sphinx extension; start reading in `setup`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "docs" / "generated"


class Pages:
    """The generated files of one build: written only where they differ, and removed where they are stale."""

    def __init__(self, folder: Path = GENERATED) -> None:
        self.folder = folder
        self.written: set[Path] = set()

    def write(self, name: str, content: str | bytes) -> None:
        """Write `name` below the folder of generated pages, unless it is there as it should be."""
        path = self.folder / name
        data = content.encode() if isinstance(content, str) else content
        self.written.add(path)
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def prune(self) -> None:
        """Remove what an earlier build wrote and this one did not."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.written:
                path.unlink()


def generate(app: Any = None) -> None:
    """Write all pages."""
    from generate import api, benchmarks, cli, configuration, drawings, records, rooms, scenes, tutorials, zoo

    pages = Pages()
    pages.write("concepts/axes.svg", drawings.axes())
    for module in (cli, configuration, zoo, api, rooms, scenes, records, benchmarks, tutorials):
        module.write(pages)
    pages.prune()


def setup(app: Any) -> dict[str, Any]:
    """Entry of the Sphinx extension."""
    from generate import docstrings, files

    app.connect("builder-inited", generate)
    app.connect("autodoc-process-docstring", docstrings.process, priority=400)  # before napoleon's 500
    app.connect("missing-reference", docstrings.resolve)
    app.connect("html-collect-pages", files.pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
