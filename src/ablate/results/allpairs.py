"""All pairs of a study's conditions, as one family, and the letters that sum them up.

Where every condition has every seed, differences of means have the pooled residual of the two-way layout (see
`families`) and the studentized range as their distribution (Tukey). Without pairs by seed the layout is
one-way, and groups of unequal size have Kramer's errors (1956). Where noise is not equally large in all
conditions, or a run is missing, each pair has a t interval of its own with Bonferroni's correction over all
pairs.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from ablate.results import families
from ablate.results.families import BONFERRONI, Figures
from ablate.results.statistics import CONFIDENCE, Interval

TUKEY = "Tukey"
FEWEST, MOST = 3, 20  # conditions: with two there is one pair, with more nobody reads the letters


@dataclass(frozen=True)
class Pair:
    """Two conditions: the mean of the first less that of the second."""

    first: str
    second: str
    difference: float
    interval: Interval  # simultaneous, over all pairs

    @property
    def different(self) -> bool:
        """True if the interval excludes zero."""
        return self.interval[0] > 0 or self.interval[1] < 0


@dataclass(frozen=True)
class AllPairs:
    """Every pair of conditions.

    Attributes:
        pairs: in the order of the conditions.
        method: TUKEY or BONFERRONI.
        reason: the reason for Bonferroni's correction; empty for Tukey's intervals.
        letters: of each condition; two that share none differ. Those of the best mean begin with `a`.
    """

    pairs: tuple[Pair, ...]
    method: str
    reason: str
    letters: Mapping[str, str]


def compare(
    figures: Mapping[str, Figures],
    *,
    paired: bool = True,
    higher: bool = True,
    confidence: float = CONFIDENCE,
) -> AllPairs | None:
    """Compare every pair of conditions; None for fewer than FEWEST or more than MOST of them.

    Args:
        figures: of each condition, by seed.
        paired: whether figures of one seed belong together.
        higher: a higher figure is better.
        confidence: probability that all intervals cover at once.
    """
    names = [name for name, of_name in figures.items() if of_name]
    if not FEWEST <= len(names) <= MOST:
        return None
    given = [figures[name] for name in names]
    layout, reason, _ = families.layout(given[0], given[1:], paired=paired)
    means = {name: math.fsum(figures[name].values()) / len(figures[name]) for name in names}
    pairs = []
    corrected = 1 - (1 - confidence) / math.comb(len(names), 2)
    for first, second in combinations(names, 2):
        if layout is None:
            interval = families.own_interval(figures[first], figures[second], paired, corrected)
            middle = sum(interval) / 2  # of the seeds that both have
        else:
            error = math.sqrt(
                (1 / len(figures[first]) + 1 / len(figures[second])) / 2
            )  # the range is of means
            half = range_quantile(confidence, len(names), layout.degrees) * layout.scale * error
            middle = means[first] - means[second]
            interval = (middle - half, middle + half)
        pairs.append(Pair(first, second, middle, interval))
    if not any(math.isfinite(bound) for pair in pairs for bound in pair.interval):
        return None
    ranked = sorted(names, key=lambda name: -means[name] if higher else means[name])
    different = [(pair.first, pair.second) for pair in pairs if pair.different]
    method = BONFERRONI if layout is None else TUKEY
    return AllPairs(tuple(pairs), method, reason, letters(ranked, different))


@lru_cache
def range_quantile(confidence: float, groups: int, degrees: float) -> float:
    """The quantile of the studentized range of so many means."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(confidence, groups, degrees))


def letters(names: Sequence[str], different: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Letters of which two names share one exactly if they do not differ: insert and absorb (Piepho 2004).

    Args:
        names: those whose letters come first, first.
        different: pairs that differ.
    """
    place = {name: number for number, name in enumerate(names)}
    columns = [frozenset(names)]
    for pair in different:
        split = [column - {one} if set(pair) <= column else column for column in columns for one in pair]
        unique = sorted(set(split), key=lambda column: (-len(column), sorted(map(place.__getitem__, column))))
        columns = []
        for column in unique:  # the largest first: what lies within another says nothing more
            if not any(column <= kept for kept in columns):
                columns.append(column)
    columns.sort(key=lambda column: sorted(map(place.__getitem__, column)))
    marks = [_mark(number) for number in range(len(columns))]
    return {
        name: "".join(mark for mark, column in zip(marks, columns, strict=True) if name in column)
        for name in names
    }


def _mark(number: int) -> str:
    return string.ascii_letters[number] if number < len(string.ascii_letters) else f"({number})"
