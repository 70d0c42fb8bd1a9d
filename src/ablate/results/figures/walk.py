"""Roadmaps: a walk from one condition to another as a waterfall of its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.results import formats
from ablate.results.comparisons import Findings
from ablate.results.figures.canvas import WIDTH, Drawing, fit, say
from ablate.results.figures.style import FAINT, GAIN, INK, LOSS, RC
from ablate.results.paths import Path


@rc_context(RC)
def roadmap(findings: Findings, paths: Sequence[Path]) -> Figure:
    """Every step of every walk as a bar from the mean before to the mean after.

    The line at a bar's end is the step's own 95 % interval, paired by seed; pale bars are steps
    whose interval holds zero or does not exist. Paths are below each other on one scale.
    """
    rows = [len(path.steps) for path in paths]
    figure = Drawing(figsize=(WIDTH, 0.75 + 0.55 * len(paths) + 0.3 * sum(rows)))
    if not paths:
        axes = figure.subplots()
        say(axes, "this study declares no walk")
        fit(figure, axes)
        return figure
    grid = figure.subplots(len(paths), 1, sharex=True, squeeze=False, height_ratios=[n + 0.6 for n in rows])
    digits = formats.decimals(step.step.interval for path in paths for step in path.steps if step.step)
    for axes, path in zip(grid[:, 0], paths, strict=True):
        _walk(axes, path, digits)
    grid[-1, 0].set_xlabel(formats.metric_name(findings.metric))
    figure.tight_layout(pad=0.6, h_pad=1.2)
    return figure


def _walk(axes: Axes, path: Path, digits: int) -> None:
    before = path.steps[0].mean
    for row, step in enumerate(path.steps):
        if step.step is None:
            axes.plot(step.mean, row, "o", color=INK, markersize=6)
            _beside(axes, row, f"{formats.plain(step.mean, digits)}", INK)
            continue
        change = step.step.difference
        if not math.isfinite(change):
            _beside(axes, row, "no pair yet", FAINT)
            continue
        after = before + change
        color = GAIN if change >= 0 else LOSS
        low, high = step.step.interval
        sure = math.isfinite(low) and not low <= 0 <= high
        axes.barh(row, change, left=before, height=0.56, color=color, alpha=0.9 if sure else 0.35)
        axes.plot((before, before), (row - 1, row), color=FAINT, linewidth=0.8, zorder=0)
        axes.plot((before + low, before + high), (row, row), color=INK, linewidth=1.1)
        bounds = formats.interval(step.step.interval, digits)
        _beside(axes, row, f"{formats.signed(change, digits)} {bounds}", INK)
        before = after
    last = path.steps[-1].so_far
    if last is not None and last.n:
        bounds = formats.interval(last.interval, digits)
        total = f"{formats.signed(last.difference, digits)} {bounds}"
        _beside(axes, len(path.steps) - 0.1, f"in all {total}", INK, weight="bold")
    axes.use_sticky_edges = False  # bars hold the axis to their ends, and cut the first mark
    axes.margins(x=0.04)
    axes.set_ylim(len(path.steps) + 0.35, -0.6)
    axes.set_yticks(
        range(len(path.steps)), [_name(index, step.condition) for index, step in enumerate(path.steps)]
    )
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_title(path.name, loc="left", fontsize=9, fontweight="bold", color=INK)


def _name(index: int, condition: str) -> str:
    return condition if index == 0 else f"→ {condition}"


def _beside(axes: Axes, row: float, text: str, color: str, weight: str = "normal") -> None:
    place = axes.get_yaxis_transform()
    axes.text(1.02, row, text, transform=place, va="center", fontsize=8, color=color, fontweight=weight)
