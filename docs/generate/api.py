"""The reference of the Python interface: a page for each public module, filled by autodoc."""

from __future__ import annotations

import importlib
import sys
from functools import cache

from generate import ROOT, Pages
from generate.files import link
from generate.markdown import table, toctree

INTRODUCTION = """# Python

These modules are the public interface: notebooks, plug-ins and this site import them, and a test pins their
names and parameters. Everything else may change without notice.
"""


@cache
def public() -> tuple[str, ...]:
    """Return the names of the public modules, as the tests pin them."""
    sys.path.insert(0, str(ROOT))
    from tests.pinned import PUBLIC

    return tuple(sorted(PUBLIC))


def write(pages: Pages) -> None:
    """Write reference/python/*.md."""
    rows = []
    for name in public():
        module = importlib.import_module(name)
        first = (module.__doc__ or "").strip().splitlines()[0]
        rows.append((f"[`{name}`]({name}.md)", first))
        source = str(module.__file__).partition("src/")[2]
        page = [
            f"# `{name}`",
            link(f"src/{source}", depth=2),
            f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n{_imported(module)}```",
        ]
        pages.write(f"reference/python/{name}.md", "\n\n".join(page) + "\n")
    index = [INTRODUCTION, table(["module", "contents"], rows), toctree(public(), "hidden")]
    pages.write("reference/python/index.md", "\n\n".join(index) + "\n")


def _imported(module: object) -> str:
    return "   :imported-members:\n" if hasattr(module, "__all__") else ""
