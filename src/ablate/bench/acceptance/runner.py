"""Run the steps of an acceptance run and write its record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from ablate.bench.acceptance import page
from ablate.bench.acceptance.attempt import DONE, Attempt
from ablate.bench.acceptance.steps import Setting, Step, limit
from ablate.errors import UserError
from ablate.execution import environment
from ablate.kernels.selfcheck.verdicts import code_digest
from ablate.store.files import now, read_json, write_json, write_text

RECORD, PAGE = "acceptance.json", "acceptance.md"


def run(
    steps: Sequence[Step], setting: Setting, *, again: bool = False, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run the steps that the folder does not have yet, and return the whole record.

    A step that was cut off continues after what it has measured.

    Args:
        steps: in their order.
        setting: device, size, folder and limits; the folder is made if it is missing.
        again: True: run finished steps again.
        say: receives one line when a step begins and one when it ends.

    Raises:
        UserError: The folder holds a record of another device, size or code.
    """
    setting.folder.mkdir(parents=True, exist_ok=True)
    record = _record(setting, fresh=again)
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.name}"
        earlier = record["steps"].get(step.name, {})
        if not again and earlier.get("state") == DONE:
            say(f"{head}: done before")
            continue
        say(f"{head}: {step.what} (at most {limit(step, setting.toy, setting.factor)} s)")
        attempt = Attempt(step, setting, earlier.get("records", []), again)
        found = attempt.run(partial(_keep, record, step, setting))
        problem = "" if found["state"] == DONE else f": {found['problem']}"
        counted = f"{found['seconds']:.0f} s, {len(found['records'])} records"
        say(f"{head}: {found['state']} after {counted}{problem}")
    return record


def failures(record: dict[str, Any]) -> list[str]:
    """Steps that did not end as they should, and checks that did not pass, in words."""
    found = []
    for name, step in record["steps"].items():
        if step["state"] != DONE:
            found.append(f"{name}: {step['state']}, {step['problem']}")
        found += [
            f"{name}: {line['name']}: {line.get('detail') or 'not passed'}"
            for line in step["records"]
            if line.get("passed") is False
        ]
    return found


def _record(setting: Setting, fresh: bool) -> dict[str, Any]:
    """Return the folder's record, or write a new one.

    Raises:
        UserError: It is of another device, size or code, and no fresh one is wanted.
    """
    repository = environment.repository()
    head = {
        "device": str(setting.device),
        "toy": setting.toy,
        "commit": repository["commit"],
        "dirty": repository["dirty"],
        "kernels": code_digest()[:12],
    }
    found = read_json(setting.folder / RECORD)
    if isinstance(found, dict) and isinstance(found.get("steps"), dict):
        differing = [name for name in head if found.get(name) != head[name]]
        if not differing:
            return found
        if not fresh:
            was = ", ".join(f"{name} {found.get(name)}, now {head[name]}" for name in differing)
            raise UserError(
                f"{setting.folder / RECORD} is of another run: {was}",
                "use another --out, or --again to measure everything anew",
            )
    for left in setting.folder.glob(".*.jsonl"):
        left.unlink()
    record = {**head, "date": now(), "steps": {}}
    write_json(setting.folder / RECORD, record)
    return record


def _keep(record: dict[str, Any], step: Step, setting: Setting, found: dict[str, Any]) -> None:
    record["steps"][step.name] = found
    write_json(setting.folder / RECORD, record)
    write_text(setting.folder / PAGE, page.markdown(record))


def device(name: str | None) -> torch.device:
    """The named device; without a name the card, if there is one.

    Raises:
        UserError: cuda, and PyTorch finds no card.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no card here", "use --device cpu; see `ablate doctor`")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
