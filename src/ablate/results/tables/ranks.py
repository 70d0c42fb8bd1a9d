"""Table of average ranks over many hosts, data sets or studies."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.results import formats
from ablate.results.ranks import Ranks
from ablate.results.tables.table import Table, number, words


def ranks(metric: str, found: Ranks | None) -> Table:
    """A row for each condition, the best average rank first; no rows where places are too few."""
    title = "Average ranks over places"
    if found is None:
        return Table("ranks", title, [])
    below: dict[str, list[str]] = {name: [] for name in found.conditions}
    for pair in found.pairs:
        if pair.p < found.level:
            below[pair.better].append(pair.worse)
    rows = [
        {
            "Condition": words(name),
            "Average rank": number(average, formats.plain(average, 2)),
            "Ranked first": number(firsts, f"{firsts} of {found.places}"),
            "Not distinguished from (Nemenyi)": words(_others(found, found.nemenyi, place)),
            "Better than (Wilcoxon)": words("; ".join(below[name])),
        }
        for place, (name, average, firsts) in enumerate(
            zip(found.conditions, found.averages, found.firsts, strict=True)
        )
    ]
    kind = " × ".join(found.kinds)
    left = (
        f" {formats.counted(found.left_out, 'place')} without all conditions left out."
        if found.left_out
        else ""
    )
    smallest = min(1.0, found.smallest_p * len(found.pairs))
    few = (
        f" With {found.places} places its smallest p is {found.smallest_p:.3g}, corrected {smallest:.3g}"
        + (": it cannot distinguish any pair." if smallest >= found.level else ".")
    )
    note = (
        f"Ranks of the mean {formats.metric_name(metric).removesuffix(' (%)')} within {found.places} places "
        f"({kind}), 1 is the best. Friedman’s χ² = {found.friedman:.2f}, Iman and Davenport’s "
        f"p = {formats.probability(found.p)}. Nemenyi: average ranks that are nearer than "
        f"{found.critical:.2f} are not distinguished at 5 %. Wilcoxon: signed-rank test of every pair, "
        f"Holm-corrected over {formats.counted(len(found.pairs), 'pair')}.{few} The tests take places as "
        f"independent; those that share a host or a data set are not quite.{left}"
    )
    return Table("ranks", title, rows, note)


def _others(found: Ranks, groups: Sequence[tuple[int, int]], place: int) -> str:
    """The conditions that are in a group with this one."""
    near = {other for first, last in groups if first <= place <= last for other in range(first, last + 1)}
    return "; ".join(found.conditions[other] for other in sorted(near - {place}))
