"""The conditions of a study: what they are called, and which one is the baseline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ablate.errors import UserError
from ablate.store.manifest import Manifest, PlannedRun

UNSET = "default"  # the level of a factor that a run does not override


def text(value: object) -> str:
    """Text of a level for display and comparison: equal values have equal texts, however they were spelled.

    Numbers that are whole lose their fraction (`1.0` is `1`), null and booleans are written as in YAML, lists
    as `[3,5]`; a text that reads like one of these is quoted.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and value.lower() in ("null", "none", "true", "false"):
        return repr(value)
    return str(value)


def labels(manifest: Manifest) -> list[str]:
    """The condition of every planned run, in the manifest's order.

    With one factor a condition is called by its level (`lsa`), with several by short name and
    level of each (`heads=C, region=window`), without any by the study's name. Levels that all lie in
    one folder (`lsa_to_elsa/elsa`) are called without it.
    """
    names = short_names(manifest.factors)
    short = {
        factor: short_levels(run.factors.get(factor, UNSET) for run in manifest.runs)
        for factor in manifest.factors
    }
    return [_label(manifest, names, short, run) for run in manifest.runs]


def short_levels(levels: Iterable[str]) -> dict[str, str]:
    """Every level, and how it is called: without the folder that it shares with all others."""
    found = list(dict.fromkeys(levels))
    folders = {level.rpartition("/")[0] for level in found}
    shared = len(folders) == 1 and len(found) > 1
    return {level: level.rpartition("/")[2] if shared else level for level in found}


def short_names(factors: Sequence[str]) -> list[str]:
    """The last parts of dotted or slashed factors, as many as it takes to tell them apart."""
    parts = [re.split(r"[./]", factor) for factor in factors]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = [".".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(factors)


def baseline(manifest: Manifest) -> str:
    """The condition that all others are compared with: the declared one, else the first.

    Raises:
        UserError: the study has no runs, or its baseline matches none or several conditions.
    """
    if not manifest.runs:
        way_out = (
            f"start it: {manifest.command.splitlines()[-1]}"
            if manifest.command
            else "plan some with `ablate train -m`"
        )
        raise UserError(f"study {manifest.name!r} has no runs", way_out)
    conditions = labels(manifest)
    declared = {factor: str(level) for factor, level in manifest.baseline.items()}
    matches = dict.fromkeys(
        condition
        for condition, run in zip(conditions, manifest.runs, strict=True)
        if all(run.factors.get(factor) == level for factor, level in declared.items())
    )
    if declared and len(matches) != 1:
        wanted = ", ".join(f"{factor}={level}" for factor, level in declared.items())
        found = "several conditions" if matches else "no condition"
        raise UserError(
            f"the baseline {wanted} of study {manifest.name!r} matches {found}",
            f"name one of them through the factors {', '.join(manifest.factors)}: "
            + "; ".join(matches or dict.fromkeys(conditions)),
        )
    return next(iter(matches))


def _label(
    manifest: Manifest, names: Sequence[str], short: Mapping[str, Mapping[str, str]], run: PlannedRun
) -> str:
    levels = [short[factor][run.factors.get(factor, UNSET)] for factor in manifest.factors]
    match levels:
        case []:
            return manifest.name
        case [level]:
            return level
    return ", ".join(f"{name}={level}" for name, level in zip(names, levels, strict=True))
