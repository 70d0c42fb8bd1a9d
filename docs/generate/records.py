"""The records under experiments/ as pages of the site, with their figures and tables."""

from __future__ import annotations

import re
from pathlib import Path

from generate import ROOT, Pages
from generate.files import link
from generate.markdown import toctree

EXPERIMENTS = ROOT / "experiments"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
TABLES = {"table": "All conditions", "comparisons": "Comparisons in detail"}


def write(pages: Pages) -> None:
    """Write records/*.md with their figures."""
    names = sorted(path.parent.name for path in EXPERIMENTS.glob("*/README.md"))
    for name in names:
        folder = EXPERIMENTS / name
        text = (folder / "README.md").read_text(encoding="utf-8")
        text, tables = rewrite(pages, text, folder, name), _tables(folder)
        pages.write(f"records/{name}.md", f"{text.rstrip()}\n\n{tables}\n".rstrip() + "\n")
    full_scale = (EXPERIMENTS / "imagenet.md").read_text(encoding="utf-8")
    pages.write("records/imagenet.md", rewrite(pages, full_scale, EXPERIMENTS, "imagenet"))
    index = rewrite(pages, (EXPERIMENTS / "README.md").read_text(encoding="utf-8"), EXPERIMENTS, "index")
    index = re.sub(r"^# .*$", "# Records", index, count=1, flags=re.MULTILINE)
    pages.write("records/index.md", f"{index.rstrip()}\n\n{toctree([*names, 'imagenet'], 'hidden')}\n")


def rewrite(pages: Pages, text: str, folder: Path, name: str) -> str:
    """Return a page of the repository with links that are right on the site.

    Figures are copied beside the page; a link to another record leads to its page, one to any other file to
    the page of that file, and one to a folder becomes text.
    """

    def replace(found: re.Match[str]) -> str:
        picture, label, target = found.groups()
        if re.match(r"https?:|#|mailto:", target):
            return found[0]
        path = (folder / target.partition("#")[0]).resolve()
        if picture:
            figure = (
                path.relative_to(EXPERIMENTS).as_posix() if path.is_relative_to(EXPERIMENTS) else path.name
            )
            pages.write(f"records/{figure}", path.read_bytes())
            return f"![{label}]({figure})"
        if path.name == "README.md" and path.parent.parent == EXPERIMENTS:
            return f"[{label}]({path.parent.name}.md)"
        if path == EXPERIMENTS / "imagenet.md":
            return f"[{label}](imagenet.md)"
        if path.is_file():
            return link(path.relative_to(ROOT).as_posix(), _label(label), depth=1)
        return label

    return LINK.sub(replace, text)


def _label(label: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", label)


def _tables(folder: Path) -> str:
    """Return the tables of a record, folded."""
    found = sorted((folder / "tables").rglob("*.md"))
    if not found:
        return ""
    parts = ["## Tables"]
    for path in found:
        inner = path.relative_to(folder / "tables").with_suffix("").as_posix()
        text = re.sub(r"(?m)^#+ .*\n", "", path.read_text(encoding="utf-8"))
        parts.append(f"::::{{dropdown}} {TABLES.get(inner, inner.replace('_', ' '))}\n{text.rstrip()}\n::::")
    return "\n\n".join(parts)
