"""The manifest of a submission: which runs its study consists of, and what they vary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ablate import commands
from ablate.compose.request import Request
from ablate.compose.study import read as read_study
from ablate.launch import growth
from ablate.store import manifest
from ablate.store.files import now
from ablate.store.identity import pair_key, signature
from ablate.store.locks import locked
from ablate.store.manifest import Manifest

Note = Callable[[str], object]  # prints what the user should know


@dataclass(frozen=True)
class Plan:
    """The runs of one command, as a part of their study.

    Attributes:
        requests: the runs.
        runs_dir: folder of all runs.
        command: recorded in the manifest.
        partial: the command runs a part of the study; its baseline and conditions of a path may be missing.
        impossible: combinations that the command left out because they cannot exist, with the reasons.
    """

    requests: Sequence[Request]
    runs_dir: Path
    command: str
    partial: bool = False
    impossible: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def study(self) -> str:
        """Name of the study.

        A sweep without a name gets one that is the same for the same runs; a single run has its signature.
        """
        if name := read_study(self.requests[0].config["study"]).name:
            return name
        if len(self.members) == 1:
            return self.members[0].signature
        signatures = sorted(member.signature for member in self.members)
        return f"sweep-{hashlib.sha256(json.dumps(signatures).encode()).hexdigest()[:8]}"

    @cached_property
    def members(self) -> list[growth.Member]:
        """The runs as members of the study."""
        return [
            growth.Member(
                signature(request.config),
                pair_key(request.config),
                request.config["seed"],
                request.overrides,
                source=request.config,
            )
            for request in self.requests
        ]

    def manifest(self) -> Manifest:
        """Merge the runs into the study's manifest as it is on disk, without writing it.

        Raises:
            UserError: a path or a baseline of the study that cannot be.
        """
        study = read_study(self.requests[0].config["study"])
        study.check_paths()
        earlier = manifest.find(self.runs_dir, self.study)
        planned = growth.grow(earlier, self.study, self.members, study, self.runs_dir)
        before = earlier.plugins if earlier is not None else []
        planned.plugins = list(
            dict.fromkeys([*before, *(self.requests[0].config["infra"].get("plugins") or ())])
        )
        planned.impossible = {**(earlier.impossible if earlier is not None else {}), **self.impossible}
        command = self.command
        if earlier is not None:
            known = {run.signature for run in earlier.runs}
            if known.issuperset(member.signature for member in self.members):  # nothing is added
                command = earlier.command
            command = "\n".join(dict.fromkeys([*earlier.command.splitlines(), *command.splitlines()]))
            if replace(planned, command=command, updated=earlier.updated) == earlier:
                return earlier
        return replace(planned, command=command, updated=now())

    def check(self, planned: Manifest, note: Note) -> None:
        """Refuse a design that the report would refuse after all runs; of a part of a study, note it.

        Raises:
            UserError: the baseline is not one of the study's conditions, or a path lacks one.
        """
        partial = self.partial or len({run.pair_key for run in planned.runs}) == 1
        for error in growth.check(planned):
            if not partial:
                raise error
            note(f"{error.problem}: so far")

    def save(self, note: Note) -> Manifest:
        """Add the runs to the manifest as it is now: another command may have added some meanwhile."""
        name, runs_dir = self.study, self.runs_dir
        folder = manifest.study_dir(runs_dir, name)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / manifest.LOCK):
            if (kept_aside := manifest.set_aside_damaged(runs_dir, name)) is not None:
                note(
                    f"the manifest of study {name} was damaged and is now {kept_aside}; the study consists "
                    "of the runs of this command: submit its other commands again, which computes nothing "
                    "twice"
                )
            earlier = manifest.find(runs_dir, name)
            planned = self.manifest()
            if planned != earlier:
                planned.save(runs_dir)
        for factor in planned.factors:
            if earlier and factor not in earlier.factors:
                note(_growth(planned, factor, runs_dir))
        requested = read_study(self.requests[0].config["study"]).margin
        if requested is not None and requested != planned.margin:
            note(_kept_margin(planned, requested, runs_dir))
        return planned


def _kept_margin(planned: Manifest, requested: float, runs_dir: Path) -> str:
    report = commands.command("report", planned.name, "--margin", f"{requested:g}", runs_dir=runs_dir)
    return (
        f"study {planned.name} keeps the margin {planned.margin:g} that was set first; study.margin="
        f"{requested:g} is not used. A report can use another one, which it marks as chosen after the runs:\n"
        f"  → {report}"
    )


def _growth(planned: Manifest, factor: str, runs_dir: Path) -> str:
    levels = list(dict.fromkeys(run.factors[factor] for run in planned.runs))
    remove = commands.command("study", "remove", planned.name, f"{factor}={levels[0]}", runs_dir=runs_dir)
    return (
        f"study {planned.name} grows: {factor} is one of its factors now ({', '.join(levels)}); "
        f"another study.name keeps two studies apart, and this leaves runs out:\n  → {remove}"
    )
