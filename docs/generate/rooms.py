"""The packages of ablate: a drawing of what imports what, and a tour of the files, both from the code."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from generate import ROOT, Pages, drawings
from generate.files import link
from generate.markdown import fence, plain, table

SOURCE = ROOT / "src" / "ablate"
GROUND = ("errors", "configuration", "commands")  # below all packages
ORDER = (  # from the ground; a room that is not named here comes last
    *("store", "results", "kernels", "ops", "data", "hosts", "models", "official", "tasks", "training"),
    *("compose", "execution", "launch", "studies", "bench", "testing", "cli", "api"),
)
TOUR = """# Dive into the code

Every package, from the ground up, with the text at its head and a link to each file. The links lead to copies
of the files on this site. Most packages have a sentence "Start reading in …": begin there.
"""


def write(pages: Pages) -> None:
    """Write architecture/rooms.svg and architecture/tour.md."""
    pages.write("architecture/rooms.svg", drawings.rooms(rooms(), ground(), imports(), _title))
    pages.write("architecture/tour.md", tour())


def rooms() -> list[str]:
    """Return the packages of ablate, from the ground up."""
    found = [path.name for path in SOURCE.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def ground() -> list[str]:
    """Return the modules below all packages."""
    return [name for name in GROUND if (SOURCE / f"{name}.py").exists()]


def imports() -> Counter[tuple[str, str]]:
    """Return how many modules of one package import from another, inside functions too."""
    import grimp

    graph = grimp.build_graph("ablate", cache_dir=None)
    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        importer = _room(module)
        imported = {_room(name) for name in graph.find_modules_directly_imported_by(module)}
        found.update((importer, room) for room in imported if room != importer and room not in GROUND)
    return found


def tour() -> str:
    """Return the page with every package and its files."""
    parts = [TOUR, "## The ground", "Every package may import these; `results` omits `configuration`."]
    parts.append(_files([SOURCE / f"{name}.py" for name in ground()]))
    for room in rooms():
        folder = SOURCE / room
        parts += [f"({_anchor(room)})=\n## `{room}`", *_docstring(folder / "__init__.py")]
        for inner in [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]:
            files = sorted(inner.glob("*.py"))
            if not files:
                continue
            if inner != folder:
                parts.append(f"### `{inner.relative_to(SOURCE).as_posix()}`")
            parts.append(_files(files))
    return "\n\n".join(parts) + "\n"


def _anchor(room: str) -> str:
    return f"room-{room}"


def _files(paths: list[Path]) -> str:
    rows = []
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        rows.append((link(name, f"<code>{path.name}</code>", depth=1), plain(_title_of(path))))
    return table(["file", "contents"], rows)


def _title(room: str) -> str:
    return _title_of(SOURCE / room / "__init__.py")


def _title_of(path: Path) -> str:
    """Return the first line of a module's docstring."""
    if not path.exists():
        return ""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0] if text else ""


def _docstring(path: Path) -> Iterator[str]:
    """Give the paragraphs of a module's docstring as Markdown; indented ones are code."""
    if not path.exists():
        return
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    for paragraph in text.split("\n\n"):
        if all(line.startswith("    ") for line in paragraph.splitlines()):
            yield fence(paragraph)
        else:
            yield plain(" ".join(paragraph.splitlines()))


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (SOURCE / parts[1]).is_dir() else "errors"
