"""The notebooks as pages of the site: MyST-NB executes them when the site is built."""

from __future__ import annotations

import re

from generate import ROOT, Pages
from generate.markdown import toctree

NOTEBOOKS = ROOT / "notebooks"
FIRST = "quick"  # read before the others
INTRODUCTION = """# Tutorials

These pages are the notebooks of the repository (`notebooks/`), executed when the site was built: every table
and every picture is made by the code above it. `make notebooks` executes them on your machine, and any editor
that knows the percent format of jupytext opens them as cells.
"""


def write(pages: Pages) -> None:
    """Write tutorials/*.ipynb."""
    import jupytext
    import nbformat

    names = sorted((path.stem for path in NOTEBOOKS.glob("*.py")), key=lambda name: (name != FIRST, name))
    listed = []
    for name in names:
        notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
        for number, each in enumerate(notebook.cells):
            each["id"] = f"cell-{number}"  # the same in every build
        heading = re.match(r"# (.*)", notebook.cells[0].source)
        listed.append(f"- [{heading[1] if heading else name}]({name}.ipynb)")
        pages.write(f"tutorials/{name}.ipynb", nbformat.writes(notebook) + "\n")
    listed_names = toctree(names, "hidden")
    pages.write("tutorials/index.md", "\n\n".join([INTRODUCTION, "\n".join(listed), listed_names]) + "\n")
