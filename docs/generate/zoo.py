"""The zoo: a page for every operator of the registry, and the table of all."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from generate import ROOT, Pages, pictures
from generate.configuration import CONF
from generate.configuration import read as read_settings
from generate.files import link
from generate.markdown import fence, plain, table, toctree

REFERENCE_SHAPE = "96 channels, 3 heads and a map of 56×56, the first stage of Swin-T at 224×224"
# what hosts have themselves
OWN = {"swin": "lsa", "resnet": "conv", "volo": "outlook", "convnext": "dwconv", "nat": "na"}
INTRODUCTION = f"""# The zoo

{{count}} operators. Each has a page with its equation, its place on the two axes, a picture, its settings and
its costs; `ablate ops NAME` prints the same facts in a terminal. Parameters and multiply-accumulates (MACs)
are those at {REFERENCE_SHAPE}. `ablate ops --markdown` prints this table.
"""
POINTS = """## Points of the one equation

These operators differ in the settings of one class, so that a study can walk from one to another one factor
at a time. [](../../concepts/equation.md) explains the axes.
"""
OTHERS = """## Operators of their own

These are not one sum over a region. Each says where it is on the two axes.
"""


def write(pages: Pages) -> None:
    """Write zoo/*.md."""
    from ablate import ops

    for name in ops.names():
        pages.write(f"zoo/{name}.svg", pictures.picture(name))
        pages.write(f"zoo/{name}.md", page(name))
    pages.write("zoo/index.md", index())


def index() -> str:
    """Return the page with the table of all operators."""
    from ablate import ops
    from ablate.ops.table import COLUMNS, rows

    found = rows()
    parts = [INTRODUCTION.format(count=len(found))]
    for head, of_equation in ((POINTS, True), (OTHERS, False)):
        chosen = [row for row in found if (ops.spec(row[0]).config is not None) == of_equation]
        linked = [(f"[`{row[0]}`]({row[0]}.md)", *row[1:]) for row in chosen]
        parts += [head, table(COLUMNS, linked, "lllrrl")]
    parts.append(toctree([row[0] for row in found], "hidden"))
    return "\n\n".join(parts) + "\n"


def page(name: str) -> str:
    """Return the page of one operator."""
    from ablate import ops
    from ablate.ops import configs, costs
    from ablate.ops.page import flat
    from ablate.ops.table import DIM, HEADS, HEIGHT, WIDTH

    entry = ops.spec(name)
    module = ops.create(name, DIM, heads=HEADS, resolution=(HEIGHT, WIDTH))
    macs = costs.macs(module, 1, HEIGHT, WIDTH, DIM)
    equivariance = {
        0: "no",
        1: "yes, away from the border",
    }.get(entry.equivariance, f"by multiples of {entry.equivariance} positions, away from the border")
    facts = [
        ("paper", entry.cited(", ")),
        ("channel setting", entry.channel_setting),
        ("spatial processing", entry.spatial_processing),
        ("strides", ", ".join(map(str, entry.strides))),
        ("moves with its input", equivariance),
        ("parameters", f"{costs.parameters(module):,}"),
        (
            "multiply-accumulates",
            f"{macs / 1e6:,.1f} M per image; {macs / (HEIGHT * WIDTH):,.0f} per position",
        ),
        ("kernels", _kernels(name)),
        ("source", _source(name)),
    ]
    parts = [f"# `{name}`", _summary(name)]
    if entry.equation:
        parts += ["## Equation", fence(entry.equation)]
    parts += [
        "## Facts",
        table(["property", "value"], facts),
        f"Costs are those at {REFERENCE_SHAPE}.",
        "## What it looks at",
        f"```{{image}} {name}.svg\n:alt: {pictures.caption(name)}\n:class: picture\n```",
        pictures.caption(name),
        "## Settings",
    ]
    meanings = configs.comments(name)
    rows = [
        (f"`{path}`", f"`{value}`", plain(meanings.get(path, ""))) for path, value in flat(entry.defaults)
    ]
    if rows:
        parts += [
            "In Hydra as below; in Python the same names are arguments of `ablate.ops.create`.",
            table(["setting", "default", "meaning"], rows),
        ]
    else:
        parts.append("It has no settings.")
    if entry.quirks:
        parts += ["## Worth knowing", "\n".join(f"- {plain(_sentence(quirk))}" for quirk in entry.quirks)]
    parts += [
        "## Try it",
        fence("\n".join(_commands(name, entry.host)), "sh"),
    ]
    return "\n\n".join(parts) + "\n"


def _commands(name: str, host: str) -> Iterator[str]:
    """Give a run of seconds on random images, and a study against the host's own operator."""
    yield f"ablate train op={name} {host} recipe=debug data=synthetic"
    family = re.sub(r"^host=|_.*", "", host)
    if (baseline := OWN[family]) != name:
        yield f"ablate train -m op={baseline},{name} {host} seed=0,1,2 study.name={name}_against_{baseline}"


def _summary(name: str) -> str:
    """Return what the file of the preset says, or the docstring of the class."""
    path = CONF / "op" / f"{name}.yaml"
    if path.exists():
        return plain(read_settings(path)[0])
    return ""


def _source(name: str) -> str:
    """Return links to the operator's files."""
    found = [f"conf/op/{name}.yaml"]
    quoted = re.compile(rf'(register|register_preset)\(\s*"{name}"')
    found += [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "src/ablate/ops/zoo").glob("*.py"))
        if quoted.search(path.read_text(encoding="utf-8"))
    ]
    return ", ".join(link(path, depth=1) for path in found if (ROOT / path).exists())


def _kernels(name: str) -> str:
    """Return the compiled operations that a forward pass calls, with their implementations."""
    called = sorted(_called(name))
    if not called:
        return "PyTorch's own operators"
    return "; ".join(f"`ablate::{operation}` ({_implementations(operation)})" for operation in called)


@cache
def _called(name: str) -> frozenset[str]:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    from ablate import ops

    found: set[str] = set()

    class Recorded(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "ablate":
                found.add(func._schema.name.partition("::")[2])
            return func(*args, **(kwargs or {}))

    operator = ops.create(name, 32, heads=2, resolution=(14, 14))
    with FakeTensorMode(allow_non_fake_inputs=True), Recorded():  # nothing is computed or compiled
        operator(torch.zeros(2, 14, 14, 32, requires_grad=True))
    return frozenset(found)


@cache
def _implementations(operation: str) -> str:
    """Return which implementations the folder of an operation has: `numba`, `triton`, `reference`."""
    from torch.library import CustomOpDef

    for package in sorted((ROOT / "src/ablate/kernels").glob("[a-z]*/__init__.py")):
        module = importlib.import_module(f"ablate.kernels.{package.parent.name}")
        defined = [value for value in vars(module).values() if isinstance(value, CustomOpDef)]
        if any(value._qualname == f"ablate::{operation}" for value in defined):
            words = {"numba": "Numba on a CPU", "triton": "Triton on CUDA"}
            found = [text for name, text in words.items() if _has(package.parent, name)]
            return ", ".join([*found, "PyTorch elsewhere"]) if found else "PyTorch, in parts"
    raise LookupError(f"no folder of ablate.kernels defines the operation {operation!r}")


def _has(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").exists() or (folder / name).is_dir()


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] if text[0].isascii() else text
