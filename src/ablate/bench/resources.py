"""`ablate bench kernels --aot`: what each compiled Triton kernel needs of a GPU, without one."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path

from ablate.bench import aot
from ablate.bench.progress import track
from ablate.bench.settings import chosen


def measure(names: list[str]) -> dict[str, aot.Resources]:
    """Compile the named kernels (`aggregate_taps`; all where none is) in all their forms.

    Raises:
        UserError: an unknown kernel; names the nearest one.
    """
    needed = aot.names()
    functions = dict.fromkeys(name.split()[0] for name in needed)
    asked = set(chosen("compiled kernel", names, list(functions)))
    forms = [name for name in needed if name.split()[0] in asked]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the assembler, a process, takes half of the time
        used = pool.map(lambda name: aot.measure(*needed[name]), forms)
        return dict(zip(track(forms, "compiling"), used, strict=True))


def regenerate(path: Path) -> None:
    """Compile everything and write the figures that the tests compare with."""
    found = measure([])
    aot.write_golden(path, found)
    print(summary(found))
    print(path)


def show(found: dict[str, aot.Resources]) -> None:
    """Print a line for every compiled kernel, and how many there are and spill."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kernel, precision, architecture, constants")
    for field in fields(aot.Resources):
        table.add_column(field.name, justify="right")
    for name, used in found.items():
        style = "red" if used.spills else None
        table.add_row(name, *(str(value) for value in asdict(used).values()), style=style)
    console.print(table)
    console.print(summary(found), style="italic")
    note = "registers, stack and local (bytes) of a thread, shared (bytes) and warps of a program"
    console.print(note, style="italic")


def dump(found: dict[str, aot.Resources]) -> None:
    """Print the same for programs."""
    print(json.dumps({name: asdict(used) for name, used in found.items()}, indent=2))


def summary(found: dict[str, aot.Resources]) -> str:
    """Summarise how many kernels were compiled, and how many of them spill."""
    functions = len({name.split()[0] for name in found})
    spills = sum(used.spills for used in found.values())
    return f"{len(found)} compiled kernels of {functions} functions, {spills} of them with spills"
