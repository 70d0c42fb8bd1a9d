"""Docstrings as reStructuredText: they are text with `code`, Google's sections and indented equations."""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import Any

from generate import ROOT
from generate.api import public

SECTIONS = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples|Note):$")


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape what reStructuredText would read as markup, and mark indented text as literal."""
    found: list[str] = []
    in_section = False
    literal = False
    for index, line in enumerate(lines):
        indented = line.startswith(" ")
        if line and not indented:
            in_section = SECTIONS.match(line) is not None
            literal = False
        elif indented and not in_section and not literal and (index == 0 or not lines[index - 1].strip()):
            found += ["::", ""]
            literal = True
        found.append(line if literal or ">>>" in line else escape(line))
    lines[:] = found


def escape(line: str) -> str:
    """Escape a line outside of `code`."""
    parts = re.split(r"(`[^`]*`)", line)
    for index in range(0, len(parts), 2):
        text = parts[index].replace("\\", "\\\\").replace("|", r"\|")
        text = re.sub(r"(?<!\*)\*(?!\*)(?=\S)", r"\*", text)
        parts[index] = re.sub(r"_(?!\w)", r"\_", text)
    return "".join(parts)


@cache
def _canonical() -> dict[str, str]:
    """Pages that document an object, by the name of the module that defines it."""
    found: dict[str, str] = {}
    for module in public():
        for name in getattr(importlib.import_module(module), "__all__", ()):
            value = getattr(importlib.import_module(module), name)
            if home := getattr(value, "__module__", None):
                found.setdefault(f"{home}.{name}", f"{module}.{name}")
    return found


def resolve(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Resolve a reference to an object of ablate that is not documented by the name it has in its annotation.

    A public object is found by its public name; for any other the link leads to the file that defines it.
    """
    from docutils.nodes import reference

    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("ablate."):
        return None
    if target in _canonical():
        domain = env.get_domain("py")
        return domain.resolve_xref(
            env, node.get("refdoc"), app.builder, "obj", _canonical()[target], node, contnode
        )
    module = f"src/{target.rpartition('.')[0].replace('.', '/')}"
    path = next((p for p in (f"{module}.py", f"{module}/__init__.py") if (ROOT / p).is_file()), None)
    if path is None:
        return None
    uri = app.builder.get_relative_uri(node.get("refdoc"), f"files/{path}")
    return reference("", "", contnode, internal=True, refuri=uri)
