"""Factorial studies: marginal means, main effects, two-way interactions, shares of variance.

A *cell* is a combination of levels. Everything is computed within each seed and then compared over
seeds, so that what runs of one seed share drops out, as in the study's other comparisons. In a
complete design the marginal mean of a level is the plain mean of its cells. Where cells are missing
it is what an additive model, fitted to each seed, expects of the complete design (the estimated
marginal mean of Searle, Speed and Milliken 1980), and `Factorial.absent` says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.results import statistics
from ablate.results.conditions import short_names
from ablate.results.statistics import Interval
from ablate.store.folder import FINISHED
from ablate.store.manifest import Manifest

SEED, REST = "seed", "rest"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """One level of a factor, averaged over all others: the main effect against the factor's reference."""

    factor: str
    level: str
    reference: str  # of the factor: the baseline's level
    mean: float
    interval: Interval  # of the mean by itself
    difference: float  # from the reference; NaN for the reference itself
    difference_interval: Interval
    p: float
    p_holm: float = math.nan


@dataclass(frozen=True)
class Interaction:
    """Change of the effect of one factor's level with another factor's level."""

    factors: tuple[str, str]
    levels: tuple[str, str]  # against the two references
    difference: float
    interval: Interval
    p: float
    p_holm: float = math.nan


@dataclass(frozen=True)
class Share:
    """The variance that a term accounts for (type II sums of squares)."""

    term: str
    degrees: int
    sum_of_squares: float
    share: float  # of the total about the mean; shares add up to 1 in a complete design


@dataclass(frozen=True)
class Factorial:
    """A study of two or more factors, over the seeds that have every cell."""

    factors: tuple[str, ...]
    levels: dict[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]  # seeds that lack a cell
    absent: tuple[tuple[str, ...], ...]  # cells of the complete design without enough runs
    cells: dict[tuple[str, ...], float]  # mean over seeds
    marginal: tuple[Level, ...]
    interactions: tuple[Interaction, ...]
    shares: tuple[Share, ...]


def analyse(manifest: Manifest, runs: pd.DataFrame) -> Factorial | None:
    """The factorial analysis of collected runs; None where a study has no two varied factors.

    A cell counts if half of the seeds have a figure in it, a seed if it has all cells that count.
    Also None where fewer than two seeds are left, or where the cells that are there cannot tell the
    factors apart.
    """
    names = dict(zip(manifest.factors, short_names(manifest.factors), strict=True))
    levels = {names[factor]: tuple(dict.fromkeys(runs[factor].astype(str))) for factor in manifest.factors}
    levels = {name: found for name, found in levels.items() if len(found) > 1}
    factors = tuple(levels)
    if len(factors) < 2:
        return None
    kept = [factor for factor in manifest.factors if names[factor] in levels]
    table = _table(runs, kept, manifest.metric)
    seeds = table.columns
    table = table[table.notna().mean(axis=1) >= 0.5].dropna(axis=1)
    present = [tuple(map(str, cell)) for cell in table.index]
    if not present or table.shape[1] < 2 or not (design := _Design(levels, present)).estimable():
        return None
    figures = table.to_numpy().T  # (seeds, cells)
    references = _references(manifest, names, levels)
    return Factorial(
        factors=factors,
        levels=levels,
        seeds=tuple(map(int, table.columns)),
        left_out=tuple(int(seed) for seed in seeds if seed not in table.columns),
        absent=tuple(cell for cell in itertools.product(*levels.values()) if cell not in set(present)),
        cells=dict(zip(present, figures.mean(axis=0).tolist(), strict=True)),
        marginal=tuple(_marginal(design, figures, references)),
        interactions=tuple(_interactions(design, figures, references)),
        shares=tuple(shares(design.levels, present, figures)),
    )


def _table(runs: pd.DataFrame, factors: Sequence[str], metric: str) -> pd.DataFrame:
    """One row per cell, in the order of the study, and one column per seed; NaN where there is no figure."""
    figures = runs[metric].to_numpy(dtype=float, na_value=math.nan)
    usable = (runs["state"] == FINISHED) & np.isfinite(figures)
    frame = runs[[*factors, "seed"]].assign(figure=np.where(usable, figures, math.nan))
    order = frame[list(factors)].astype(str).drop_duplicates()
    frame[list(factors)] = frame[list(factors)].astype(str)
    wide = frame.pivot_table(index=list(factors), columns="seed", values="figure", dropna=False)
    return wide.reindex(pd.MultiIndex.from_frame(order))


def _references(
    manifest: Manifest, names: Mapping[str, str], levels: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    declared = {names[factor]: str(level) for factor, level in manifest.baseline.items()}
    return {
        factor: declared[factor] if declared.get(factor) in found else found[0]
        for factor, found in levels.items()
    }


class _Design:
    """The cells that are there, as rows of an additive model."""

    def __init__(self, levels: Mapping[str, Sequence[str]], cells: Sequence[tuple[str, ...]]) -> None:
        self.levels = {factor: tuple(found) for factor, found in levels.items()}
        self.cells = list(cells)
        self.rows = self._rows(self.cells)
        self.whole = list(itertools.product(*self.levels.values()))
        self.solution = np.linalg.pinv(self.rows)

    def _rows(self, cells: Sequence[tuple[str, ...]]) -> Array:
        return np.array(
            [
                [1.0]
                + [
                    float(level == other)
                    for level, found in zip(cell, self.levels.values(), strict=True)
                    for other in found[1:]
                ]
                for cell in cells
            ]
        )

    def estimable(self) -> bool:
        """Return True if the cells tell all levels apart."""
        return bool(len(self.cells)) and np.linalg.matrix_rank(self.rows) == self.rows.shape[1]

    def marginal(self, factor: str, level: str, figures: Array) -> Array:
        """The marginal mean of a level within each seed, from (seeds, cells)."""
        place = list(self.levels).index(factor)
        if len(self.cells) == len(self.whole):
            return figures[:, [cell[place] == level for cell in self.cells]].mean(axis=1)
        expected = self._rows([cell for cell in self.whole if cell[place] == level])
        return figures @ (expected.mean(axis=0) @ self.solution)


def _marginal(design: _Design, figures: Array, references: Mapping[str, str]) -> Iterable[Level]:
    found = []
    for factor, levels in design.levels.items():
        reference = design.marginal(factor, references[factor], figures)
        for level in levels:
            means = design.marginal(factor, level, figures)
            itself = level == references[factor]
            differences = means - reference
            found.append(
                Level(
                    factor=factor,
                    level=level,
                    reference=references[factor],
                    mean=float(means.mean()),
                    interval=statistics.t_interval(means),
                    difference=math.nan if itself else float(differences.mean()),
                    difference_interval=statistics.NO_INTERVAL
                    if itself
                    else statistics.t_interval(differences),
                    p=math.nan if itself else statistics.sign_flip_p(differences),
                )
            )
    compared = [each for each in found if math.isfinite(each.difference)]
    corrected = iter(statistics.holm([each.p for each in compared]))
    return [replace(e, p_holm=float(next(corrected))) if math.isfinite(e.difference) else e for e in found]


def _interactions(design: _Design, figures: Array, references: Mapping[str, str]) -> Iterable[Interaction]:
    """Double differences within each seed, over the other factors' combinations that have all four cells."""
    found = []
    column = {cell: index for index, cell in enumerate(design.cells)}
    for a, b in itertools.combinations(design.levels, 2):
        at, bt = (list(design.levels).index(factor) for factor in (a, b))
        for level_a, level_b in itertools.product(design.levels[a], design.levels[b]):
            if level_a == references[a] or level_b == references[b]:
                continue
            doubles = []
            for cell in design.cells:
                if cell[at] != level_a or cell[bt] != level_b:
                    continue
                corners = [
                    column.get(_with(_with(cell, at, x), bt, y))
                    for x in (level_a, references[a])
                    for y in (level_b, references[b])
                ]
                if None not in corners:
                    both, only_a, only_b, neither = (figures[:, corner] for corner in corners)
                    doubles.append(both - only_a - only_b + neither)
            if doubles:
                differences = np.mean(doubles, axis=0)
                found.append(
                    Interaction(
                        factors=(a, b),
                        levels=(level_a, level_b),
                        difference=float(differences.mean()),
                        interval=statistics.t_interval(differences),
                        p=statistics.sign_flip_p(differences),
                    )
                )
    corrected = statistics.holm([each.p for each in found])
    return [replace(each, p_holm=float(p)) for each, p in zip(found, corrected, strict=True)]


def _with(cell: tuple[str, ...], place: int, level: str) -> tuple[str, ...]:
    return (*cell[:place], level, *cell[place + 1 :])


def shares(
    levels: Mapping[str, Sequence[str]], cells: Sequence[tuple[str, ...]], figures: Array
) -> list[Share]:
    """Type II sums of squares of seed, factors and their two-way interactions, and the rest.

    Args:
        levels: of each factor.
        cells: those that are there.
        figures: (seeds, cells).
    """
    seeds = len(figures)
    coded = {
        factor: _contrasts([list(found).index(cell[place]) for cell in cells] * seeds, len(found))
        for place, (factor, found) in enumerate(levels.items())
    }
    coded = {SEED: _contrasts(np.repeat(range(seeds), len(cells)), seeds), **coded}
    terms: dict[frozenset[str], Array] = {frozenset({name}): columns for name, columns in coded.items()}
    for a, b in itertools.combinations(levels, 2):
        products = coded[a][:, :, None] * coded[b][:, None, :]
        terms[frozenset({a, b})] = products.reshape(len(products), -1)
    y = figures.ravel()
    total = float(((y - y.mean()) ** 2).sum())
    found = []
    for term, columns in terms.items():
        others = [theirs for other, theirs in terms.items() if not term <= other]
        without, without_rank = _residual(y, others)
        with_it, rank = _residual(y, [*others, columns])
        ordered = [name for name in coded if name in term]
        explained = max(without - with_it, 0.0)
        found.append(Share(" × ".join(ordered), rank - without_rank, explained, explained / total))
    rest, rank = _residual(y, list(terms.values()))
    found.append(Share(REST, y.size - rank, rest, rest / total))
    return found


def _contrasts(codes: Iterable[int], count: int) -> Array:
    """Columns that sum to zero over the levels."""
    table = np.vstack([np.eye(count - 1), -np.ones(count - 1)])
    return table[np.asarray(list(codes))]


def _residual(y: Array, columns: Sequence[Array]) -> tuple[float, int]:
    """The residual sum of squares of a least-squares fit with a constant, and the fit's rank."""
    design = np.column_stack([np.ones_like(y), *columns])
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    return float(((y - design @ solution) ** 2).sum()), int(rank)
