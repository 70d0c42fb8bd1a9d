"""`study.exclude`, `study.only` and `study.zip`: the cells of a sweep that a study consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ablate.compose import study as studies
from ablate.compose.request import Request
from ablate.errors import UserError, unknown
from ablate.results.conditions import short_names


def chosen(requests: Sequence[Request], *, portion: bool = False) -> list[Request]:
    """Return the requests that a study keeps: in a cell of `only`, if any, in none of `exclude`, and zipped.

    A cell is `factor=level`, or `factor=level,level` for alternatives, or several with commas between, which
    must all hold. Factors may be called by their last part: `channel` for `op/channel`. `zip` names factors
    that vary together, with commas between: the first level of each, the second of each, and so on.

    Args:
        requests: the runs of one command.
        portion: they are a part of their study, as in a search.

    Raises:
        UserError: a cell has a factor that the command does not vary, or fits no run; nothing is left; or a
            search has cells.
    """
    study = studies.read(requests[0].config["study"])
    if not (study.only or study.exclude or study.zip):
        return list(requests)
    if portion:
        raise UserError(
            "study.exclude, only and zip choose cells of a grid, and a search has none", "leave them out"
        )
    factors = list(dict.fromkeys(name for request in requests for name in request.overrides))
    names = dict(zip(short_names(factors), factors, strict=True)) | {name: name for name in factors}
    only = [_matches(requests, f"study.only: {cell!r}", _levels(cell, names)) for cell in study.only or ()]
    without = [
        _matches(requests, f"study.exclude: {cell!r}", _levels(cell, names)) for cell in study.exclude or ()
    ]
    kept: set[int] = set().union(*only) if only else set(range(len(requests)))
    kept -= set().union(*without)
    kept = kept.intersection(*(_zipped(requests, together, names) for together in study.zip or ()))
    if not kept:
        raise UserError("study.exclude, only and zip leave no run", "choose less strictly")
    return [requests[index] for index in sorted(kept)]


def _zipped(requests: Sequence[Request], together: str, names: Mapping[str, str]) -> set[int]:
    """Return the places of the requests in which factors have levels of the same place.

    Raises:
        UserError: fewer than two factors, an unknown one, or other numbers of levels.
    """
    given = [part.strip() for part in together.split(",")]
    for name in given:
        if name not in names:
            raise unknown("factor of study.zip", name, names)
    if len({names[name] for name in given}) < max(2, len(given)):
        raise UserError(
            f"study.zip: {together!r} does not name different factors",
            "name two or more: 'op,recipe.learning_rate'",
        )
    factors = [names[name] for name in given]
    places = []
    for factor in factors:
        levels = dict.fromkeys(request.overrides.get(factor) for request in requests)
        places.append({level: place for place, level in enumerate(levels)})
    if len({len(levels) for levels in places}) > 1:
        counts = ", ".join(f"{name} has {len(levels)}" for name, levels in zip(given, places, strict=True))
        raise UserError(
            f"study.zip: factors have different numbers of levels: {counts}", "give as many of each"
        )
    return {
        index
        for index, request in enumerate(requests)
        if len(
            {levels[request.overrides.get(factor)] for factor, levels in zip(factors, places, strict=True)}
        )
        == 1
    }


def _levels(cell: str, names: Mapping[str, str]) -> dict[str, list[str]]:
    """The alternatives of a cell by factor."""
    found: dict[str, list[str]] = {}
    for part in map(str.strip, cell.split(",")):
        name, equals, level = part.partition("=")
        level = level if equals else part
        if equals and name not in names:
            raise unknown("factor of a cell", name, names)
        if not level or not (equals or found):
            raise UserError(f"{cell!r} is not a cell of a study", "write factor=level, e.g. op=elsa,heads=1")
        factor = names[name] if equals else list(found)[-1]
        found.setdefault(factor, []).append(level)
    return found


def _matches(requests: Sequence[Request], what: str, levels: Mapping[str, Sequence[str]]) -> set[int]:
    """The places of the requests in a cell.

    Raises:
        UserError: one of its levels fits none; names the levels that there are.
    """
    for factor, wanted in levels.items():
        there = list(dict.fromkeys(one.overrides[factor] for one in requests if factor in one.overrides))
        if strange := [level for level in wanted if level not in there]:
            raise UserError(f"{what} fits no run", f"{factor} has no {strange[0]!r}, but {', '.join(there)}")
    found = {
        index
        for index, request in enumerate(requests)
        if all(request.overrides.get(factor) in wanted for factor, wanted in levels.items())
    }
    if not found:
        raise UserError(f"{what} fits no run", "no run of this command has all of these levels")
    return found
