"""Reports of a benchmark: a table in the terminal, Markdown or JSON, with hardware and versions."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch

from ablate.bench.agreement import FellBack
from ablate.bench.ceiling import Ceiling
from ablate.bench.settings import Settings
from ablate.bench.timing import Times
from ablate.execution import environment
from ablate.results.formats import NOTHING
from ablate.store.files import write_json, write_text


class Line(Protocol):
    """A line of a table."""

    @property
    def differing(self) -> list[str]:
        """Reasons why nothing is timed: how values differ between implementations, kernels that fell back."""

    def cells(self) -> tuple[str, ...]:
        """Text, for people: first a name; where values differ, then only how."""

    def as_json(self) -> dict[str, Any]:
        """Figures, for programs."""


@dataclass(frozen=True)
class Report:
    """One run of a benchmark.

    Attributes:
        kind: kernels, ops or models.
        refused: what could not be measured → why.
    """

    kind: str
    columns: Sequence[str]
    lines: Sequence[Line]
    notes: Sequence[str]
    settings: Settings
    ceiling: Ceiling | None = None
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def agreed(self) -> bool:
        """True if all values did."""
        return all(isinstance(reason, FellBack) for line in self.lines for reason in line.differing)

    @property
    def compiled(self) -> bool:
        """True if no kernel fell back to PyTorch."""
        return not any(isinstance(reason, FellBack) for line in self.lines for reason in line.differing)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Date, command, commit, versions and hardware."""
        device = self.settings.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        found = environment.describe(name, torch.get_num_threads())
        del found["diff"]
        found["versions"]["numba"] = metadata.version("numba")
        command = shlex.join(["ablate", *sys.argv[1:]])
        return {"date": str(date.today()), "command": command, **found}

    def as_json(self) -> dict[str, Any]:
        """Everything, in seconds, bytes and FLOPs."""
        return {
            "kind": self.kind,
            **self.environment,
            "batch": self.settings.batch,
            "repetitions": self.settings.repetitions,
            "dtype": str(self.settings.dtype).removeprefix("torch."),
            "ceiling": self.ceiling and self.ceiling.as_json(),
            "lines": [line.as_json() for line in self.lines],
            "refused": self.refused,
        }

    def header(self) -> list[str]:
        """A few lines that say where and when it was measured."""
        where = self.environment
        hardware, commit = where["hardware"], where["commit"] or "unknown"
        cores = f"{hardware['cores']} cores, {hardware['threads']} threads"
        changed = " with uncommitted changes" if where["dirty"] else ""
        found = [
            f"`{where['command']}`, {where['date']}, commit {commit[:12]}{changed}",
            f"{hardware['device']}; {hardware['cpu']}, {cores}",
            ", ".join(f"{package} {version}" for package, version in where["versions"].items()),
        ]
        if self.ceiling is not None:
            flops, moved = self.ceiling.flops / 1e9, self.ceiling.bytes / 1e9
            found.append(f"ceiling: matrix product {flops:.4g} GFLOP/s, copy {moved:.4g} GB/s")
        return found

    def footer(self) -> list[str]:
        """Explanation of the columns, and of what was refused."""
        return [*(f"{name}: {reason}" for name, reason in self.refused.items()), *self.notes]


def show(report: Report) -> None:
    """Print the table for people, and what did not agree below it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for index, column in enumerate(report.columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for line in report.lines:
        if not line.differing:
            table.add_row(*map(escape, line.cells()))
    if any(not line.differing for line in report.lines):
        needed = Console(width=10_000).measure(table).maximum  # a narrow window breaks lines, not figures
        Console(width=max(console.width, needed), highlight=False).print(table)
    for line in report.lines:
        if line.differing:
            console.print(f"[red]not timed:[/] {escape(_one_line(' '.join(line.cells())))}")
    for text in [*report.header(), *report.footer()]:
        console.print(escape(text), style="italic")


def markdown(report: Report) -> str:
    """The record: header, table, notes."""
    columns = [_one_line(column) for column in report.columns]
    rows = [[_one_line(cell) for cell in line.cells()] for line in report.lines]
    filled = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
    table = [columns, [":--", *["--:"] * (len(columns) - 1)], *filled]
    parts = [
        f"# Speed of {report.kind}",
        "\n".join(f"- {text}" for text in report.header()),
        "\n".join("| " + " | ".join(row) + " |" for row in table),
        *report.footer(),
    ]
    return "\n\n".join(parts) + "\n"


def keep(report: Report, folder: Path) -> list[Path]:
    """Write the record as Markdown and JSON, named by device, date and kind."""
    folder.mkdir(parents=True, exist_ok=True)
    device = report.settings.device
    slug = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    name = f"{re.sub('[^a-z0-9]+', '-', slug.lower())}-{date.today()}-{report.kind}"
    paths = [folder / f"{name}.md", folder / f"{name}.json"]
    write_text(paths[0], markdown(report))
    write_json(paths[1], report.as_json())
    return paths


def dump(report: Report) -> None:
    """Print the record for programs."""
    print(json.dumps(report.as_json(), indent=2, ensure_ascii=False, allow_nan=False))


def milliseconds(times: Times | None) -> str:
    """Format seconds as milliseconds, or as a dash."""
    if times is None:
        return NOTHING
    return seconds(Times(tuple(1e3 * sample for sample in times.samples)))


def seconds(times: Times) -> str:
    """'1.23', and under it '[1.21 1.29]': median and quartiles."""
    low, high = times.quartiles
    return f"{three_digits(times.median)}\n[{three_digits(low)} {three_digits(high)}]"


def three_digits(value: float) -> str:
    """0.123, 1.23, 12.3, 123, 1234."""
    decimals = sum(value < bound for bound in (100, 10, 1))
    return f"{value:.{decimals}f}"


def _one_line(cell: str) -> str:
    return cell.replace("\n", " ")


def ratio(value: float | None) -> str:
    """Two decimals, or nothing."""
    return NOTHING if value is None else f"{value:.2f}"
