"""Conditions ranked within many hosts, data sets or studies: average ranks and groups of conditions.

A place is one host, data set or study, see `beyond`. Within each, the conditions are ranked by their mean
over the seeds. Friedman's test asks whether the ranks of the places have anything in common (Demšar 2006,
"Statistical comparisons of classifiers over multiple data sets", Journal of Machine Learning Research 7,
with the F statistic of Iman and Davenport, 1980). Two ways to compare pairs follow:

- Nemenyi's critical difference of average ranks, as Demšar recommends;
- Wilcoxon's signed-rank test of every pair with Holm's correction. Benavoli, Corani and Mangili (2016,
  "Should we really use post-hoc tests based on mean-ranks?", Journal of Machine Learning Research 17)
  recommend it, because whether two conditions differ by their ranks depends on which others the study has.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import fdtrc

from ablate.results import statistics
from ablate.results.allpairs import range_quantile
from ablate.results.beyond import laid_out
from ablate.results.comparisons import by_seed
from ablate.results.statistics import CONFIDENCE
from ablate.store.manifest import Manifest

PLACES = 5  # with fewer, ranks say next to nothing
FEWEST, MOST = 3, 24  # conditions: two have no ranks to speak of, and of more nobody reads the diagram
DIGITS = 9  # figures that differ by less are ties, not rounding errors
Array = NDArray[np.float64]


@dataclass(frozen=True)
class RankedPair:
    """Two conditions, the one that the signed ranks favour first."""

    better: str
    worse: str
    p: float  # of Wilcoxon's test, Holm-corrected over all pairs


@dataclass(frozen=True)
class Ranks:
    """Conditions by their average rank over places, the best first.

    Attributes:
        conditions: their names.
        averages: average rank of each; 1 is the best.
        firsts: number of places where each is the best, ties included.
        places: number of places that have all conditions.
        friedman: Friedman's χ², corrected for ties.
        p: of Iman and Davenport's F.
        critical: Nemenyi's critical difference of two average ranks.
        nemenyi: groups that it does not distinguish, each by the indices of its first and last condition; one
            group of all where Iman and Davenport's p is not below the level.
        pairs: all pairs.
        wilcoxon: groups in which Wilcoxon's test distinguishes no pair, likewise.
        kinds: factors that say where.
        left_out: number of places that lack a condition.
        level: of the tests.
    """

    conditions: tuple[str, ...]
    averages: tuple[float, ...]
    firsts: tuple[int, ...]
    places: int
    friedman: float
    p: float
    critical: float
    nemenyi: tuple[tuple[int, int], ...]
    pairs: tuple[RankedPair, ...]
    wilcoxon: tuple[tuple[int, int], ...]
    kinds: tuple[str, ...] = ()
    left_out: int = 0
    level: float = 1 - CONFIDENCE

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that Wilcoxon's test of one pair can reach with so many places."""
        return 2.0 ** (1 - self.places)


def analyse(manifest: Manifest, runs: pd.DataFrame, *, higher: bool = True) -> Ranks | None:
    """Rank the conditions of a study over its places; None where fewer than PLACES have all of them.

    Also None for fewer than FEWEST or more than MOST conditions. The figure of a condition in a place is its
    mean over the seeds that all conditions have there.

    Args:
        manifest: of the study.
        runs: one row per run, as `collect` returns them.
        higher: a higher figure is better.
    """
    if (laid := laid_out(manifest, runs)) is None:
        return None
    where, what = laid.where, laid.what
    conditions = list(dict.fromkeys(what))
    if not FEWEST <= len(conditions) <= MOST:
        return None
    table = []
    for _, group in runs.groupby(where, sort=False):
        figures = [by_seed(group[what[group.index] == name], manifest.metric) for name in conditions]
        if shared := sorted(set.intersection(*(set(each) for each in figures))):
            table.append([float(np.mean([each[seed] for seed in shared])) for each in figures])
    if len(table) < PLACES:
        return None
    found = rank(np.array(table), conditions, higher=higher)
    return replace(found, kinds=tuple(laid.kinds), left_out=int(where.nunique()) - len(table))


def rank(table: Array, names: Sequence[str], *, higher: bool = True, confidence: float = CONFIDENCE) -> Ranks:
    """Rank the columns of a table.

    Args:
        table: (places, conditions).
        names: of the conditions.
        higher: a higher figure is better.
        confidence: of the tests.
    """
    signed = np.round(-table if higher else table, DIGITS)
    ranks = pd.DataFrame(signed).rank(axis=1).to_numpy()  # ties get their mean rank
    order = np.argsort(ranks.mean(axis=0), kind="stable")
    signed, ranks, ordered = signed[:, order], ranks[:, order], [names[place] for place in order]
    averages, (places, count), level = ranks.mean(axis=0), ranks.shape, 1 - confidence
    friedman, p = friedman_p(ranks)
    factor = range_quantile(confidence, count, math.inf) / math.sqrt(2)
    critical = factor * math.sqrt(count * (count + 1) / (6 * places))
    couples = list(combinations(range(count), 2))
    apart = {(a, b) for a, b in couples if averages[b] - averages[a] >= critical and p < level}
    tests = [signed_rank_p(signed[:, a] - signed[:, b]) for a, b in couples]
    corrected = statistics.holm([test.p for test in tests]).tolist()
    distinct = {pair for pair, value in zip(couples, corrected, strict=True) if value < level}
    pairs = [
        RankedPair(ordered[a], ordered[b], value)
        if test.sum <= 0
        else RankedPair(ordered[b], ordered[a], value)
        for (a, b), test, value in zip(couples, tests, corrected, strict=True)
    ]
    return Ranks(
        conditions=tuple(ordered),
        averages=tuple(averages.tolist()),
        firsts=tuple((signed == signed.min(axis=1, keepdims=True)).sum(axis=0).tolist()),
        places=places,
        friedman=friedman,
        p=p,
        critical=critical,
        nemenyi=groups(count, apart),
        pairs=tuple(pairs),
        wilcoxon=groups(count, distinct),
        level=level,
    )


def friedman_p(ranks: Array) -> tuple[float, float]:
    """Friedman's χ², corrected for ties, and the p-value of Iman and Davenport's F; 0 and 1 if all are ties.

    F = (N − 1) χ² / (N (k − 1) − χ²) for N places and k conditions, with k − 1 and (k − 1)(N − 1) degrees of
    freedom: less conservative than χ² with few places (Demšar 2006, section 3.2.2).

    Args:
        ranks: (places, conditions), ties with their mean rank.
    """
    places, count = ranks.shape
    middle = (count + 1) / 2
    within = float(((ranks - middle) ** 2).sum())
    if not within:
        return 0.0, 1.0
    between = float(((ranks.sum(axis=0) - places * middle) ** 2).sum())
    found = (count - 1) * between / within
    rest = places * (count - 1) - found
    if rest <= 1e-9 * found:
        return found, 0.0  # every place has the same ranks
    freedom = (count - 1, (count - 1) * (places - 1))
    return found, float(fdtrc(*freedom, (places - 1) * found / rest))


class SignedRanks(NamedTuple):
    """Wilcoxon's test: the sum of the signed ranks, and the two-sided p-value."""

    sum: float
    p: float


def signed_rank_p(differences: Array) -> SignedRanks:
    """Wilcoxon's signed-rank test (1945), exact over all signs, also with ties; zeros are left out.

    Args:
        differences: one per place.
    """
    left = np.round(differences[np.round(differences, DIGITS) != 0], DIGITS)
    if not left.size:
        return SignedRanks(0.0, 1.0)
    doubled = np.round(2 * pd.Series(np.abs(left)).rank().to_numpy()).astype(int)  # whole, also with ties
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for step in doubled:  # probability of each sum of the positive ranks
        ways[step:] = (ways[step:] + ways[:-step]) / 2
        ways[:step] /= 2
    positive = int(doubled[left > 0].sum())
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return SignedRanks((2 * positive - int(doubled.sum())) / 2, min(1.0, 2 * float(tail)))


def groups(count: int, apart: Collection[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the longest runs of neighbours of which no two are apart, each by its first and last index.

    Args:
        count: number of conditions, in the order of their ranks.
        apart: pairs of indices, the smaller one first.
    """
    found: list[tuple[int, int]] = []
    for first in range(count - 1):
        last = first
        while last + 1 < count and not any((one, last + 1) in apart for one in range(first, last + 1)):
            last += 1
        if last > first and not (found and last <= found[-1][1]):  # it is not within the one before
            found.append((first, last))
    return tuple(found)
