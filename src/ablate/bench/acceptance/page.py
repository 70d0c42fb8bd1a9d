"""The page of an acceptance run, for `benchmarks/`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ablate.bench.report import three_digits
from ablate.results.formats import NOTHING

FIGURES = {  # key of a record → heading, and what it is multiplied by
    "seconds": ("ms", 1e3),
    "of_copy": ("of the copy's rate", 1.0),
    "images_per_second": ("images/s", 1.0),
    "flops_per_second": ("TFLOP/s", 1e-12),
    "peak_bytes": ("peak MB", 1e-6),
}


def markdown(record: dict[str, Any]) -> str:
    """The whole record in Markdown: a head, one table for each step, what did not pass first."""
    size = " at toy size: its times mean nothing" if record["toy"] else ""
    commit = str(record["commit"] or "unknown")[:12]
    parts = [f"# Acceptance run on {_device(record)}{size}", f"- {record['date']}, commit {commit}"]
    for name, step in record["steps"].items():
        parts += [f"## {name}: {step['state']} after {step['seconds']} s", *_step(step)]
    return "\n\n".join(parts) + "\n"


def _device(record: dict[str, Any]) -> str:
    for line in record["steps"].get("machine", {}).get("records", ()):
        if line["name"] == "environment":
            return str(line["hardware"]["device"])
    return str(record["device"])


def _step(step: dict[str, Any]) -> list[str]:
    records: list[dict[str, Any]] = step["records"]
    found = [step["problem"]] if step["problem"] else []
    checks = [line for line in records if "passed" in line]
    if checks:
        count = {word: sum(line["passed"] is word for line in checks) for word in (True, False, None)}
        skipped = f", {count[None]} without a verdict" if count[None] else ""
        found.append(f"{count[True]} passed, {count[False]} failed{skipped}.")
        found += _list(line for line in checks if line["passed"] is not True)
    figures = [line for line in records if any(key in line for key in FIGURES)]
    if figures:
        found.append(_table(figures))
    others = [line for line in records if "passed" not in line and line not in figures]
    return [*found, *_list(others)]


def _list(lines: Iterable[dict[str, Any]]) -> list[str]:
    """One item for each record: its name, and everything else that it says."""
    items = []
    for line in lines:
        said = "; ".join(
            f"{key} {_value(value)}" for key, value in line.items() if key not in ("name", "passed")
        )
        items.append(f"- {line['name']}: {said}" if said else f"- {line['name']}")
    return ["\n".join(items)] if items else []


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return NOTHING if value is None else str(value)


def _table(lines: list[dict[str, Any]]) -> str:
    """Records with figures: name, shape, median with quartiles, and which other figures there are."""
    keys = [key for key in FIGURES if any(key in line for line in lines)]
    rows = [["", "", *(FIGURES[key][0] for key in keys)], [":--", ":--", *["--:"] * len(keys)]]
    rows += [[line["name"], line.get("shape", ""), *(_cell(line, key) for key in keys)] for line in lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(line: dict[str, Any], key: str) -> str:
    if key not in line:
        return NOTHING
    factor = FIGURES[key][1]
    text = three_digits(line[key] * factor)
    if key == "seconds" and "quartiles" in line:
        low, high = (three_digits(value * factor) for value in line["quartiles"])
        return f"{text} [{low} {high}]"
    return text
