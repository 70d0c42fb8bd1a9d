"""Table of effects over several hosts, data sets or studies."""

from __future__ import annotations

import math

from ablate.results import formats
from ablate.results.beyond import Beyond
from ablate.results.tables.table import Cell, Table, difference, number, words

MANY = 10  # places, from which on an interval of their scatter says much


def over_places(metric: str, found: Beyond | None) -> Table:
    """A row for each condition: its effect on average, in a new place, and how often it is better."""
    if found is None:
        return Table("over_places", "Over all places", [])
    digits = formats.decimals(effect.interval for effect in found.effects)
    title = f"{formats.difference_name(metric)} [95 % interval]"
    kind = " × ".join(found.kinds)
    rows = [
        {
            "Condition": words(effect.condition),
            "Places": number(len(effect.places), str(len(effect.places))),
            title: difference(effect.mean, effect.interval, digits),
            f"In a new {kind} [95 %]": Cell("", None)
            if math.isnan(effect.prediction[0])
            else number(
                effect.prediction[0],
                formats.interval(effect.prediction, digits),
                low=effect.prediction[0],
                high=effect.prediction[1],
            ),
            "sd between": number(effect.between, formats.plain(effect.between, digits)),
            "P(better) [95 %]": number(
                effect.better,
                f"{effect.better:.2f} {formats.interval(effect.better_interval, 2).replace('+', '')}",
                low=effect.better_interval[0],
                high=effect.better_interval[1],
            ),
        }
        for effect in found.effects
    ]
    fewest = min(len(effect.places) for effect in found.effects)
    few = f" With {fewest} places intervals are wide, as they have to be." if fewest < MANY else ""
    place = f"a combination of {kind}" if len(found.kinds) > 1 else f"a {kind}"
    note = (
        f"A place is {place}; within each, runs are compared with {found.baseline} by seed. Random effects "
        "by restricted maximum likelihood, Hartung and Knapp's interval of the mean, and Higgins's for a new "
        f"place. P(better): share of pairs in favour, bootstrap over places and seeds.{few}"
    )
    return Table("over_places", "Over all places", rows, note)
