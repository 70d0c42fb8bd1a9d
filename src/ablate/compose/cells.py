"""`study.exclude` and `study.only`: the cells of a sweep that a study consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ablate.compose import study as studies
from ablate.compose.request import Request
from ablate.errors import UserError, unknown
from ablate.results.conditions import short_names


def chosen(requests: Sequence[Request], *, portion: bool = False) -> list[Request]:
    """Return the requests that a study keeps: in a cell of `only`, if any, and in none of `exclude`.

    A cell is `factor=level`, or several of them with commas between, which must all hold. Factors may be
    called by their last part: `channel` for `op/channel`.

    Args:
        requests: the runs of one command.
        portion: they are a part of their study, as in a search.

    Raises:
        UserError: a cell has a factor that the command does not vary, or fits no run; nothing is left; or a
            search has cells.
    """
    study = studies.read(requests[0].config["study"])
    if not (study.only or study.exclude):
        return list(requests)
    if portion:
        raise UserError(
            "study.exclude and study.only choose cells of a grid, and a search has none", "leave them out"
        )
    factors = list(dict.fromkeys(name for request in requests for name in request.overrides))
    names = dict(zip(short_names(factors), factors, strict=True)) | {name: name for name in factors}
    only = [_matches(requests, f"study.only: {cell!r}", _levels(cell, names)) for cell in study.only or ()]
    without = [
        _matches(requests, f"study.exclude: {cell!r}", _levels(cell, names)) for cell in study.exclude or ()
    ]
    kept: set[int] = set().union(*only) if only else set(range(len(requests)))
    kept -= set().union(*without)
    if not kept:
        raise UserError("study.exclude and study.only leave no run", "choose less strictly")
    return [requests[index] for index in sorted(kept)]


def _levels(cell: str, names: Mapping[str, str]) -> dict[str, str]:
    """The levels of a cell by factor."""
    found = {}
    for part in cell.split(","):
        name, equals, level = part.strip().partition("=")
        if not equals or not level:
            raise UserError(f"{cell!r} is not a cell of a study", "write factor=level, e.g. op=elsa,heads=1")
        if name not in names:
            raise unknown("factor of a cell", name, names)
        found[names[name]] = level.strip()
    return found


def _matches(requests: Sequence[Request], what: str, levels: Mapping[str, str]) -> set[int]:
    """The places of the requests in a cell.

    Raises:
        UserError: there is none; names the levels that there are.
    """
    found = {index for index, request in enumerate(requests) if levels.items() <= request.overrides.items()}
    if not found:
        there = {
            name: list(dict.fromkeys(request.overrides.get(name, "") for request in requests))
            for name in levels
        }
        shown = "; ".join(f"{name}: {', '.join(filter(None, values))}" for name, values in there.items())
        raise UserError(f"{what} fits no run", f"levels of this command: {shown}")
    return found
