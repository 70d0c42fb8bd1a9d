"""Expected shapes of the files of a run: valid JSON of another shape is damage too.

Each function returns what is wrong with a value, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

PENDING, RUNNING, FINISHED, FAILED, INTERRUPTED = "pending", "running", "finished", "failed", "interrupted"
PRUNED = "pruned"  # ended early by a search, which needs no more of it
DAMAGED = "damaged"  # seen by reading a run's files; never written
BEGINNING = "begins_with"  # in environment.json: the weights of `host.pretrained`, and what became of each
ENDED = (FINISHED, FAILED, PRUNED)  # neither at work nor waiting to be
STATES = (PENDING, RUNNING, FINISHED, FAILED, INTERRUPTED, PRUNED)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _moment(value: object) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None and isinstance(value, str)
    except ValueError:
        return False


def _text(value: object) -> bool:
    return isinstance(value, str)


STATUS: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("attempt", "epoch", "epochs", "first_epoch", "pid"), _count),
    **dict.fromkeys(("steps", "step", "first_step"), _count),
    **dict.fromkeys(("created", "asked", "started", "finished", "updated", "stepping", "stepped"), _moment),
    **dict.fromkeys(("host", "error"), _text),
}


def status(record: Any) -> str | None:
    """status.json: a known state; counts, times and texts where they are given."""
    if not isinstance(record, dict):
        return "not a JSON object"
    if record.get("state") not in STATES:
        return f"state is {record.get('state')!r}"
    for key, fits in STATUS.items():
        if record.get(key) is not None and not fits(record[key]):
            return f"{key} is {record[key]!r}"
    return None


def result(record: Any) -> str | None:
    """result.json: finite numbers, and figures of the test split among them."""
    if not isinstance(record, dict):
        return "not a JSON object"
    for key, value in record.items():
        if value is not None and not _number(value):
            return f"{key} is {value!r}"
    return None if any(key.startswith("test_") for key in record) else "no figures of the test split"


def classes(record: Any) -> str | None:
    """classes.json: numbers, or null, by metric and class."""
    if not isinstance(record, dict):
        return "not a JSON object"
    for metric, values in record.items():
        if not isinstance(values, dict):
            return f"{metric} is {values!r}"
        for name, value in values.items():
            if value is not None and not _number(value):
                return f"{metric} of {name} is {value!r}"
    return None


def line(record: Any) -> str | None:
    """A line of metrics.jsonl or speed.jsonl: an epoch and finite numbers."""
    if not isinstance(record, dict):
        return "not a JSON object"
    if not _count(record.get("epoch")) or not record["epoch"]:
        return f"epoch is {record.get('epoch')!r}"
    for key, value in record.items():
        if value is not None and not _number(value):
            return f"{key} is {value!r}"
    return None


def metrics_line(record: Any) -> str | None:
    """A line of metrics.jsonl: every figure is a number."""
    missing = isinstance(record, dict) and next((key for key, value in record.items() if value is None), None)
    return f"{missing} is null" if missing else line(record)


def environment(record: Any) -> str | None:
    """environment.json: its parts are objects; `numerics` and `code` are not recorded by earlier versions."""
    if not isinstance(record, dict):
        return "not a JSON object"
    for key in ("versions", "hardware"):
        if not isinstance(record.get(key), dict):
            return f"{key} is {record.get(key)!r}"
    if not isinstance(record.get("numerics", {}), dict):
        return f"numerics is {record['numerics']!r}"
    return _code(record.get("code", {}))


def _code(record: Any) -> str | None:
    """The part `code`: texts by name, and a list of names."""
    if not isinstance(record, dict):
        return f"code is {record!r}"
    for key in ("digests", "paths"):
        texts = record.get(key, {})
        if not isinstance(texts, dict) or not all(map(_text, texts.values())):
            return f"code.{key} is not texts by name"
    resumed = record.get("resumed", [])
    return None if isinstance(resumed, list) and all(map(_text, resumed)) else "code.resumed is not names"


def claim(record: Any) -> str | None:
    """claim.json: a process of a machine."""
    if not isinstance(record, dict):
        return "not a JSON object"
    for key, kind in (("pid", int), ("host", str)):
        if type(record.get(key)) is not kind:
            return f"{key} is {record.get(key)!r}"
    return None


def config(found: Any) -> str | None:
    """config.yaml: groups of settings."""
    if not isinstance(found, dict):
        return "not a group of settings"
    for key in ("infra", "study"):
        if not isinstance(found.get(key, {}), dict):
            return f"{key} is {found[key]!r}"
    return None
