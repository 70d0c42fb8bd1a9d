"""Two acceptance runs side by side: `ablate bench compare A B`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.bench.acceptance.runner import RECORD
from ablate.errors import UserError
from ablate.store.files import read_json

MEASURES = {"seconds": "time", "peak_bytes": "memory"}  # less is better
NEVER = float("inf")


@dataclass(frozen=True)
class Line:
    """One measure of one record in both runs; `change` is the second over the first, less one."""

    step: str
    name: str
    measure: str
    first: float
    second: float
    spread: float  # half the distance of the quartiles over the median, the larger of both

    @property
    def change(self) -> float:
        """0.1 is a tenth more."""
        return self.second / self.first - 1 if self.first else NEVER


@dataclass(frozen=True)
class Comparison:
    """Figures in both records, names in only one, and differences of device and versions."""

    lines: list[Line]
    only_first: list[str]
    only_second: list[str]
    no_longer: list[str]  # checks that passed in the first and not in the second
    apart: list[str]  # how devices, sizes or versions differ

    def beyond(self, threshold: float) -> list[Line]:
        """Lines that changed by more than a share, for the worse first."""
        found = [line for line in self.lines if abs(line.change) > threshold]
        return sorted(found, key=lambda line: -line.change)

    def worse(self, threshold: float) -> bool:
        """True if anything takes more than the threshold allows, or does not pass any more."""
        return bool(self.no_longer) or any(line.change > threshold for line in self.lines)


def compare(first: Path, second: Path) -> Comparison:
    """Compare the records of two folders, or of two files.

    Raises:
        UserError: No such record, a damaged one, or a toy run beside a real one.
    """
    records = [_read(path) for path in (first, second)]
    if records[0]["toy"] != records[1]["toy"]:
        raise UserError(
            f"one of {first} and {second} is a run at toy size",
            "compare two runs of one size; toy times mean nothing",
        )
    one, other = (_measures(record) for record in records)
    checks, later = (_checks(record) for record in records)
    return Comparison(
        lines=[
            Line(*key, one[key][0], other[key][0], max(one[key][1], other[key][1]))
            for key in one
            if key in other
        ],
        only_first=[" ".join(key) for key in one if key not in other],
        only_second=[" ".join(key) for key in other if key not in one],
        no_longer=[name for name, passed in checks.items() if passed and later.get(name) is False],
        apart=_apart(*records),
    )


def _read(path: Path) -> dict[str, Any]:
    file = path / RECORD if path.is_dir() else path
    found = read_json(file) if file.exists() else None
    if not isinstance(found, dict) or not isinstance(found.get("steps"), dict):
        raise UserError(
            f"{file} is not a record of an acceptance run", "name a folder of `ablate bench acceptance --out`"
        )
    return found


def _measures(record: dict[str, Any]) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(step, name, measure) → figure, relative spread."""
    found = {}
    for step, content in record["steps"].items():
        for line in content["records"]:
            name = ", ".join(part for part in (line["name"], line.get("shape")) if part)
            for key, measure in MEASURES.items():
                if key in line:
                    low, high = line.get("quartiles", (0, 0)) if key == "seconds" else (0, 0)
                    found[step, name, measure] = line[key], (high - low) / 2 / line[key] if line[key] else 0.0
    return found


def _checks(record: dict[str, Any]) -> dict[str, bool | None]:
    return {
        f"{step}: {line['name']}": line["passed"]
        for step, content in record["steps"].items()
        for line in content["records"]
        if "passed" in line
    }


def _apart(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Device, card, commit and versions where they are not the same."""
    one, other = (
        {"device": record["device"], "commit": record["commit"], **_machine(record)}
        for record in (first, second)
    )
    return [
        f"{key}: {one.get(key)}, {other.get(key)}" for key in one | other if one.get(key) != other.get(key)
    ]


def _machine(record: dict[str, Any]) -> dict[str, Any]:
    for line in record["steps"].get("machine", {}).get("records", ()):
        if line["name"] == "environment":
            return {"card": line["hardware"]["device"], **line["versions"]}
    return {}


def show(found: Comparison, threshold: float) -> None:
    """Print what changed by more than the threshold, and what cannot be compared."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("step", "what", "", "first", "second", "change", "spread"):
        table.add_column(column, justify="left" if column in ("step", "what", "") else "right")
    changed = found.beyond(threshold)
    for line in changed:
        unit = 1e3 if line.measure == "time" else 1e-6
        figures = (f"{line.first * unit:.4g}", f"{line.second * unit:.4g}")
        style = "red" if line.change > 0 else "green"
        share = f"{100 * line.change:+.1f} %"
        cells = (line.step, escape(line.name), line.measure, *figures, share, f"±{100 * line.spread:.0f} %")
        table.add_row(*cells, style=style)
    if changed:
        console.print(table)
    console.print(
        f"{len(found.lines)} figures in both, {len(changed)} apart by more than {100 * threshold:g} %"
    )
    console.print("times in ms, memory in MB; spread: half the distance of the quartiles", style="italic")
    for title, names in (
        ("does not pass any more", found.no_longer),
        ("only in the first", found.only_first),
        ("only in the second", found.only_second),
        ("the runs differ in", found.apart),
    ):
        if names:
            console.print(f"{title}: {escape('; '.join(names))}")
