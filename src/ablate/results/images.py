"""Conditions compared image by image: gains, losses, and how noisy seeds and test images make them.

Runs of two conditions are paired by seed, and their answers by image. The differences d[s, i] of seed s on
image i (1: gained, −1: lost, 0: both right or both wrong) are a table with two random effects:

    d[s, i] = δ + seed[s] + image[i] + rest[s, i]

δ is the difference of two conditions over all seeds and images that might have been drawn, a fraction. An
interval over seeds alone is right for this one test set; those here also hold for another one of this size.
Jordan (2024, arXiv:2304.01910) separates the two kinds of noise for a single network.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import bdtr

from ablate.results import comparisons, predictions, statistics
from ablate.results.comparisons import Findings
from ablate.results.predictions import Kept, Predictions
from ablate.results.statistics import NO_INTERVAL, Interval
from ablate.store.folder import FINISHED, RunFolder

RESAMPLES, AT_ONCE = 1000, 100
TOP1 = "test_top1"

Table = NDArray[np.float64]
Differences = NDArray[np.int8]


@dataclass(frozen=True)
class Components:
    """Variances of a table of seeds and images, by the mean squares of its two-way layout; none below 0.

    Attributes:
        seeds: their number.
        images: their number.
        of_seeds: σ²_s, of the difference in accuracy over all images, from run to run.
        of_images: σ²_i, from image to image, the same for every run.
        rest: σ²_e, of an image from run to run.
        degrees: of freedom of the mean's standard error (Satterthwaite).
    """

    seeds: int
    images: int
    of_seeds: float
    of_images: float
    rest: float
    degrees: float

    @classmethod
    def of(cls, table: Table) -> Components:
        """Estimate them from d, (seeds, images), two or more of each."""
        seeds, images = table.shape
        by_seed, by_image = table.mean(1, keepdims=True) - table.mean(), table.mean(0) - table.mean()
        rest = table - table.mean() - by_seed - by_image
        freedom = (seeds - 1, images - 1, (seeds - 1) * (images - 1))
        sums = (images * (by_seed**2).sum(), seeds * (by_image**2).sum(), (rest**2).sum())
        squares = [float(total) / degrees for total, degrees in zip(sums, freedom, strict=True)]
        of_seeds = max((squares[0] - squares[2]) / images, 0.0)
        of_images = max((squares[1] - squares[2]) / seeds, 0.0)
        error = of_seeds / seeds + of_images / images + squares[2] / table.size
        spread = sum((s / table.size) ** 2 / degrees for s, degrees in zip(squares, freedom, strict=True))
        return cls(seeds, images, of_seeds, of_images, squares[2], error**2 / spread if spread else math.inf)

    def error(self, seeds: float | None = None, images: float | None = None) -> float:
        """Standard error of the mean, with so many seeds and images; by default those of the table."""
        s, i = seeds or self.seeds, images or self.images
        return math.sqrt(self.of_seeds / s + self.of_images / i + self.rest / (s * i))


@dataclass(frozen=True)
class OnImages:
    """A condition against the baseline on the test images, over the seeds that finished in both.

    Attributes:
        condition: its name.
        seeds: those of the pairs.
        images: number of test images.
        gained: images that the condition gets right and the baseline wrong, a mean over the seeds.
        lost: the reverse.
        difference: of the accuracies, in points.
        interval: 95 %, for other seeds and other images: Student's t of the variance components.
        bootstrap: the same by resampling both; too wide where images change from run to run.
        mcnemar: exact p-value of each seed's pair of runs.
        components: of the variance of the differences; None with fewer than two seeds.
        calibration: expected calibration error of the condition, in points, a mean over its runs.
    """

    condition: str
    seeds: tuple[int, ...]
    images: int
    gained: float
    lost: float
    difference: float
    interval: Interval
    bootstrap: Interval
    mcnemar: tuple[float, ...]
    components: Components | None
    calibration: float


@dataclass(frozen=True)
class Images:
    """The conditions of a study on its test images."""

    baseline: str
    baseline_calibration: float  # expected calibration error, in points
    compared: list[OnImages]
    left_out: int  # finished runs without predictions, or with those of other images


def collect(runs_dir: Path, runs: pd.DataFrame) -> dict[str, Kept]:
    """Test predictions of the finished runs that kept them, by signature."""
    finished = runs.loc[runs["state"] == FINISHED, "signature"]
    found = {run: predictions.read(RunFolder(runs_dir / run).predictions_path) for run in finished}
    return {run: kept for run, kept in found.items() if kept is not None}


def compare(findings: Findings, found: Mapping[str, Kept]) -> Images | None:
    """Compare conditions on the test images, in pairs by seed.

    Args:
        findings: of the study.
        found: see `collect`.

    Returns:
        None where no condition has a pair of runs that kept predictions of the same images.
    """
    runs = findings.runs
    if findings.metric != TOP1:
        return None
    same = alike(runs, found)
    groups = {
        name: {seed: same[run] for seed, run in signatures.items()}
        for name, signatures in by_seed(runs, same).items()
    }
    theirs = groups.pop(findings.baseline, {})
    pairs = {name: sorted(mine.keys() & theirs.keys()) for name, mine in groups.items()}
    tables = {
        name: np.array([groups[name][seed].correct.astype(np.int8) - theirs[seed].correct for seed in seeds])
        for name, seeds in pairs.items()
        if seeds
    }
    if not tables:
        return None
    components = [
        Components.of(table.astype(np.float64)) if len(table) > 1 else None for table in tables.values()
    ]
    resampled = bootstrap(list(tables.values()))
    compared = [
        OnImages(
            condition=name,
            seeds=tuple(pairs[name]),
            images=table.shape[1],
            gained=float((table > 0).sum(1).mean()),
            lost=float((table < 0).sum(1).mean()),
            difference=100 * float(table.mean()),
            interval=_interval(float(table.mean()), parts),
            bootstrap=drawn,
            mcnemar=tuple(mcnemar_p(int((row > 0).sum()), int((row < 0).sum())) for row in table),
            components=parts,
            calibration=_calibration(groups[name]),
        )
        for (name, table), parts, drawn in zip(tables.items(), components, resampled, strict=True)
    ]
    finished = int((runs["state"] == FINISHED).sum())
    return Images(findings.baseline, _calibration(theirs), compared, finished - len(same))


def alike(runs: pd.DataFrame, found: Mapping[str, Kept]) -> dict[str, Predictions]:
    """Return the predictions of the runs that have the same test images as the first one, by signature."""
    labels = next((found[run].predictions.label for run in runs["signature"] if run in found), None)
    return {
        run: kept.predictions
        for run, kept in found.items()
        if labels is not None and np.array_equal(kept.predictions.label, labels)
    }


def by_seed(runs: pd.DataFrame, among: Container[str]) -> dict[str, dict[int, str]]:
    """Return the signature of each seed's run, if it is among these, by condition."""
    return {
        name: {
            int(seed): run
            for seed, run in zip(group["seed"], group["signature"], strict=True)
            if run in among
        }
        for name, group in comparisons.by_condition(runs).items()
    }


def mcnemar_p(gained: int, lost: int) -> float:
    """Exact two-sided p-value that gains and losses are equally likely (McNemar, 1947)."""
    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def _interval(mean: float, components: Components | None) -> Interval:
    """95 % interval of a mean of d, in points."""
    if components is None or not components.error():
        return NO_INTERVAL
    half = statistics.t_quantile(statistics.CONFIDENCE, components.degrees) * components.error()
    return 100 * (mean - half), 100 * (mean + half)


def _calibration(runs: Mapping[int, Predictions]) -> float:
    return float(np.mean([one.calibration_error() for one in runs.values()])) if runs else math.nan


def bootstrap(tables: Sequence[Differences]) -> list[Interval]:
    """95 % percentile intervals of the means of d, in points, by drawing seeds and images together.

    Owen, 2007, "The pigeonhole bootstrap" (doi:10.1214/07-AOAS122). Means of s drawn seeds vary too little by
    a factor of √((s − 1) / s), which is made up for; what varies from run to run within an image counts three
    times, as is shown there, so that the intervals are too wide. The images are drawn once for all tables,
    and the same again in every call.

    Args:
        tables: (seeds, images) each, of the same images; no interval for one seed.
    """
    generator = np.random.default_rng(0)
    images = tables[0].shape[1]
    means: list[list[Table]] = [[] for _ in tables]
    for _ in range(RESAMPLES // AT_ONCE):
        drawn = generator.integers(images, size=(AT_ONCE, images))
        weights = np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float32)
        for table, found in zip(tables, means, strict=True):
            by_seed = weights @ table.T.astype(np.float32) / images  # (resamples, seeds)
            chosen = generator.integers(len(table), size=by_seed.shape)
            found.append(np.take_along_axis(by_seed, chosen, 1).mean(1))
    return [_percentiles(table, np.concatenate(found)) for table, found in zip(tables, means, strict=True)]


def _percentiles(table: Differences, means: Table) -> Interval:
    seeds = len(table)
    if seeds < 2:
        return NO_INTERVAL
    centre = float(table.mean())
    low, high = np.quantile(centre + (means - centre) * math.sqrt(seeds / (seeds - 1)), [0.025, 0.975])
    return 100 * float(low), 100 * float(high)


def advice(compared: Sequence[OnImages]) -> str:
    """A sentence on what would make the intervals narrower: more seeds, or more test images."""
    known = [one.components for one in compared if one.components is not None and one.components.error() > 0]
    if not known:
        return ""
    seeds, images = (
        float(np.median([1 - one.error(**{name: 2 * getattr(one, name)}) / one.error() for one in known]))
        for name in ("seeds", "images")
    )
    of_runs = float(np.median([one.error(images=math.inf) ** 2 / one.error() ** 2 for one in known]))
    more = "more seeds" if seeds > images else "more test images"
    return (
        f"Of the variance of a difference, {100 * of_runs:.0f} % is due to the runs and would remain with a "
        f"test set without end. Twice the seeds would narrow its standard error by {100 * seeds:.0f} %, "
        f"twice the test images by {100 * images:.0f} %: {more} would help most (medians of the comparisons)."
    )
