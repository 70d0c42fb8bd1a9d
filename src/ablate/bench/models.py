"""Parameters and multiply-accumulates of every named network, beside what their authors' code counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import ablate.models
from ablate import hosts
from ablate.errors import UserError, unknown
from ablate.ops import costs
from ablate.store.files import write_text

GOLDEN = Path("tests/golden/models.json")
PIXELS = 224
GHOST = {"λ=1 γ=1": {"ghost_lambda": 1}, "λ=0 γ=0": {"ghost_gamma": 0.0}}


def catalogue() -> dict[str, Callable[[], nn.Module]]:
    """Name → what builds it: hybrids, hosts as timm has them, and variants whose counts are known."""
    found: dict[str, Callable[[], nn.Module]] = {}
    for name in hosts.names():
        if not name.endswith("_micro"):
            found[name] = _host(name)
    for name in ablate.models.names():  # some are hosts as they are, under the same name
        found[name] = _hybrid(name)
    for size in ("tiny", "small", "base"):
        for variant, channel in GHOST.items():
            found[f"elsa_swin_{size} {variant}"] = _hybrid(f"elsa_swin_{size}", op={"channel": channel})
    found["slide_swin_tiny window=7"] = _hybrid("slide_swin_tiny", window_size=7)
    return dict(sorted(found.items()))


def count(name: str) -> dict[str, int]:
    """Parameters, and multiply-accumulates for one image of 224×224, without drawing a weight.

    Raises:
        UserError: unknown name; names the nearest one.
    """
    known = catalogue()
    if name not in known:
        raise unknown("model", name, known)
    with torch.device("meta"):
        model = known[name]()
    return {
        "parameters": costs.parameters(model),
        "macs": costs.macs(model, 1, 3, PIXELS, PIXELS),
    }


def golden(path: Path = GOLDEN) -> dict[str, dict[str, int | None]]:
    """The committed figures; `authors` is what the authors' own code counts, None where there is none.

    Raises:
        UserError: no such file, or a damaged one.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise UserError(
            f"no golden figures in {path}: {error}", "run this at the top of the repository, or name the file"
        ) from error


def regenerate(path: Path = GOLDEN) -> None:
    """Count every network and write the golden file; what the authors' code counts stays as it is."""
    from rich.progress import track

    authors = {name: entry.get("authors") for name, entry in golden(path).items()} if path.exists() else {}
    names = list(catalogue())
    counted = {
        name: {**count(name), "authors": authors.get(name)}
        for name in track(names, "counting", transient=True)
    }
    write_text(path, json.dumps(counted, indent=1, ensure_ascii=False) + "\n")


def show(names: Iterable[str]) -> None:
    """Print the table; counts of the authors' code where they are known."""
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    chosen = list(names) or list(catalogue())
    expected = golden() if GOLDEN.exists() else {}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "parameters", "authors", "MACs"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    for name in track(chosen, "counting", transient=True):
        counted, authors = count(name), expected.get(name, {}).get("authors")
        agreement = "" if authors is None else "same" if authors == counted["parameters"] else f"{authors:,}"
        table.add_row(name, f"{counted['parameters']:,}", agreement, f"{counted['macs'] / 1e9:.3f} G")
    console = Console(highlight=False)
    console.print(table)
    note = f"MACs of one image of {PIXELS}×{PIXELS}; authors: parameters that their own code counts"
    console.print(note, style="italic")


def _hybrid(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **kwargs)


def _host(name: str) -> Callable[[], nn.Module]:
    return lambda: hosts.create(name, None)
