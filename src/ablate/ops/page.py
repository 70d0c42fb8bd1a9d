"""One operator's page, as `ablate ops NAME` shows it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from ablate.ops import configs, costs, registry
from ablate.ops.axes import AXES
from ablate.ops.table import DIM, HEADS, HEIGHT, WIDTH

WIDTH_OF_TEXT = 100


def page(name: str) -> str:
    """Equation, axis placement, costs, settings with their defaults, and the quirks that are kept.

    Raises:
        UserError: unknown name; names the nearest one.
    """
    entry = registry.spec(name)
    module = registry.create(name, DIM, heads=HEADS, resolution=(HEIGHT, WIDTH))
    parameters = costs.parameters(module)
    macs = costs.macs(module, 1, HEIGHT, WIDTH, DIM) / (HEIGHT * WIDTH)
    facts = {
        "paper": entry.cited(", "),
        "channel setting": entry.channel_setting,
        "spatial processing": entry.spatial_processing,
        "strides": ", ".join(map(str, entry.strides)),
        "costs": f"{parameters:,} parameters, {macs:,.0f} multiply-accumulates per position "
        f"({DIM} channels, {HEADS} heads, {HEIGHT}×{WIDTH})",
    }
    parts = [name, _facts(facts)]
    if entry.equation:
        parts.append("equation\n" + textwrap.indent(entry.equation, "  "))
    parts.append(
        "settings (in Hydra as below, in Python as arguments of ablate.ops.create)\n" + _settings(name)
    )
    if entry.quirks:
        parts.append("worth knowing\n" + "\n".join(_bullet(quirk) for quirk in entry.quirks))
    parts.append(f"to try it\n  ablate train op={name} {entry.host} recipe=debug data=synthetic")
    return "\n\n".join(parts)


def _facts(facts: dict[str, str]) -> str:
    width = max(map(len, facts))
    return "\n".join(
        textwrap.fill(
            text, WIDTH_OF_TEXT, initial_indent=f"  {key:<{width}}  ", subsequent_indent=" " * (width + 4)
        )
        for key, text in facts.items()
    )


def _settings(name: str) -> str:
    """Each setting with its default, and what its file in `conf/op` says about it."""
    settings = list(flat(registry.spec(name).defaults))
    meanings = configs.comments(name)
    width = max((len(f"{path}={value}") for path, value in settings), default=0)
    lines = []
    for path, value in settings:
        meaning = meanings.get(path, "")
        lines.append(f"  {f'{path}={value}':<{width}}  {meaning}".rstrip())
    return "\n".join(lines) if lines else "  none"


def flat(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """`op.region.kernel`, `7`; an axis whose level can be chosen comes as `op/region`, `neighborhood`."""
    for key, value in settings.items():
        if key == "name":
            continue
        if key in AXES and isinstance(value, dict):
            if "name" in value:
                yield f"op/{key}", value["name"]
            yield from ((f"op.{key}.{inner}", _written(v)) for inner, v in value.items() if inner != "name")
        else:
            yield f"op.{key}", _written(value)


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return re.sub(r"\s|'", "", str(value))


def _bullet(text: str) -> str:
    return textwrap.fill(text, WIDTH_OF_TEXT, initial_indent="  - ", subsequent_indent="    ")
