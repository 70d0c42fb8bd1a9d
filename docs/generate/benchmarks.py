"""The records of speed under benchmarks/ as pages of the site."""

from __future__ import annotations

import re

from generate import ROOT, Pages
from generate.markdown import toctree
from generate.records import rewrite

BENCHMARKS = ROOT / "benchmarks"


def write(pages: Pages) -> None:
    """Write benchmarks/*.md, the newest first."""
    names = sorted((path.stem for path in BENCHMARKS.glob("*.md") if path.stem != "README"), reverse=True)
    for name in names:
        text = (BENCHMARKS / f"{name}.md").read_text(encoding="utf-8")
        pages.write(f"benchmarks/{name}.md", rewrite(pages, text, BENCHMARKS, name))
    text = rewrite(pages, (BENCHMARKS / "README.md").read_text(encoding="utf-8"), BENCHMARKS, "index")
    listed = "\n".join(f"- [{_title(name)}]({name}.md)" for name in names)
    index = f"{text.rstrip()}\n\n## Records\n\n{listed}\n\n{toctree(names, 'hidden')}\n"
    pages.write("benchmarks/index.md", index)


def _title(name: str) -> str:
    """Return `kernels on cpu, 2026-11-26` for `cpu-2026-11-26-kernels`."""
    found = re.match(r"(.*)-(\d{4}-\d{2}-\d{2})-(.*)", name)
    return f"{found[3]} on {found[1]}, {found[2]}" if found else name
