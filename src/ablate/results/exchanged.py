"""Test images that a condition gains and loses against the baseline, to be shown with their predictions.

An image is gained if the condition gets it right and the baseline wrong in more than half of the pairs of
seeds, and lost in the reverse case. The images come from the caller: this package reads no data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.errors import UserError
from ablate.results.comparisons import Findings
from ablate.results.images import Images, alike, by_seed
from ablate.results.predictions import Kept, Predictions
from ablate.store.folder import RunFolder

MOST = 12  # images of either kind
Image = NDArray[np.uint8]
# Returns test images and their labels: of the frozen configuration of a run, those at some positions.
Source = Callable[[Mapping[str, Any], Sequence[int]], Sequence[tuple[Image, int]]]


class Exchanged(NamedTuple):
    """A test image that most pairs of runs answer differently.

    Attributes:
        position: in the test split.
        label: its class.
        before: class that most of these runs of the baseline predict.
        after: class that most of these runs of the condition predict.
        pairs: number of pairs in which it is gained, or lost.
    """

    position: int
    label: int
    before: int
    after: int
    pairs: int


@dataclass(frozen=True)
class Exchange:
    """The images that one condition gains and loses, the most consistent ones of each kind.

    Attributes:
        condition: its name.
        baseline: that of the baseline.
        pairs: of runs, by seed.
        gained: at most MOST images.
        lost: at most MOST images.
        found: number of all images gained, and lost, in most of the pairs.
        names: of the classes; may be empty.
        runs: signatures of the runs.
    """

    condition: str
    baseline: str
    pairs: int
    gained: tuple[Exchanged, ...]
    lost: tuple[Exchanged, ...]
    found: tuple[int, int]
    names: tuple[str, ...]
    runs: tuple[str, ...]

    @property
    def positions(self) -> list[int]:
        """Places of the images in the test split."""
        return [each.position for each in (*self.gained, *self.lost)]


@dataclass(frozen=True)
class Shown:
    """Exchanges with their images, or the reason why there are no images.

    Attributes:
        exchanges: those that are shown.
        pictures: the images, by their places in the test split.
        reason: why nothing is shown; empty where there is nothing to show or all is.
    """

    exchanges: tuple[Exchange, ...] = ()
    pictures: Mapping[int, Image] = field(default_factory=dict)
    reason: str = ""


NOTHING = Shown()


def choose(
    findings: Findings, images: Images | None, found: Mapping[str, Kept], requested: Iterable[str] = ()
) -> tuple[Exchange, ...]:
    """Return the exchange of the condition that differs most on the test images, and those requested.

    Args:
        findings: of the study.
        images: its conditions on the test images; none are chosen without.
        found: predictions by signature, see `images.collect`.
        requested: other conditions.
    """
    if images is None:
        return ()
    compared = {one.condition: abs(one.difference) for one in images.compared}
    chosen = [
        max(compared, key=lambda name: compared[name]),
        *(name for name in requested if name in compared),
    ]
    same = alike(findings.runs, found)
    runs = by_seed(findings.runs, same)
    names = next((tuple(found[run].names) for run in same), ())
    return tuple(
        _exchange(name, findings.baseline, (runs[findings.baseline], runs[name]), same, names)
        for name in dict.fromkeys(chosen)
    )


def _exchange(
    condition: str,
    baseline: str,
    runs: tuple[dict[int, str], dict[int, str]],
    found: Mapping[str, Predictions],
    names: tuple[str, ...],
) -> Exchange:
    seeds = sorted(runs[0].keys() & runs[1].keys())
    before, after = ([found[of[seed]] for seed in seeds] for of in runs)
    change = np.array(
        [ours.correct.astype(int) - theirs.correct for theirs, ours in zip(before, after, strict=True)]
    )
    surer = np.mean(
        [
            ours.probability.astype(float) - theirs.probability
            for theirs, ours in zip(before, after, strict=True)
        ],
        axis=0,
    )
    kinds, counts = [], []
    for sign in (1, -1):
        pairs = (change == sign).sum(axis=0)
        places = np.flatnonzero(2 * pairs > len(seeds)).tolist()
        net = sign * change.sum(axis=0)
        ranked = sorted(places, key=lambda at: (-net[at], -sign * surer[at], at))[:MOST]
        counts.append(len(places))
        changed = {at: np.flatnonzero(change[:, at] == sign).tolist() for at in ranked}
        kinds.append(
            tuple(
                Exchanged(
                    position=at,
                    label=int(before[0].label[at]),
                    before=_most(before, chosen, at),
                    after=_most(after, chosen, at),
                    pairs=len(chosen),
                )
                for at, chosen in changed.items()
            )
        )
    signatures = tuple(of[seed] for of in runs for seed in seeds)
    gained, lost = kinds
    return Exchange(condition, baseline, len(seeds), gained, lost, (counts[0], counts[1]), names, signatures)


def _most(found: Sequence[Predictions], chosen: Iterable[int], at: int) -> int:
    """The class that most of the chosen runs predict for an image, the smallest one of several."""
    classes = [int(found[run].predicted[at]) for run in chosen]
    return min(set(classes), key=lambda label: (-classes.count(label), label))


def show(exchanges: Sequence[Exchange], runs_dir: Path, source: Source | None) -> Shown:
    """Fetch the images of exchanges. No fault of the data is one of the report: it becomes a reason.

    Args:
        exchanges: see `choose`.
        runs_dir: where the runs lie.
        source: of test images; None: there is none.
    """
    wanted = tuple(each for each in exchanges if each.positions)
    if not wanted:
        return NOTHING
    if source is None:
        return Shown(reason="this report was written without the images of the data set")
    positions = sorted({position for each in wanted for position in each.positions})
    labels = {one.position: one.label for each in wanted for one in (*each.gained, *each.lost)}
    try:
        configs = [RunFolder(runs_dir / run).config(shared=True) for each in wanted for run in each.runs]
        if any(config.get("data") != configs[0].get("data") for config in configs):
            return Shown(reason="the runs were tested on different data sets")
        found = source(configs[0], positions)
    except UserError as error:
        return Shown(reason=error.problem)
    except Exception as error:  # of somebody's own data set: one figure less is no reason for no report
        return Shown(reason=f"{type(error).__name__}: {error}")
    if [label for _, label in found] != [labels[position] for position in positions]:
        return Shown(reason="the data set that is here has other labels than the runs were tested on")
    return Shown(wanted, dict(zip(positions, (image for image, _ in found), strict=True)))
