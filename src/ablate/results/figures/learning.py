"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.results import formats
from ablate.results.comparisons import Findings
from ablate.results.curves import band, column, others
from ablate.results.figures import placement
from ablate.results.figures.canvas import WIDTH, Drawing, fit, say
from ablate.results.figures.encoding import BASELINE_WIDTH, Encoding, encode
from ablate.results.figures.style import FAINT, RC, Look
from ablate.store.metrics import find

MANY_CURVES = 24
ACROSS = 3  # panels of other metrics side by side


def best(findings: Findings) -> list[str]:
    """All conditions, or the baseline and the best MANY_CURVES − 1 where there are more."""
    sign = -1 if find(findings.metric).higher else 1
    ranked = sorted(findings.summaries, key=lambda s: np.nan_to_num(sign * s.mean, nan=np.inf))
    others = [summary.condition for summary in ranked if summary.condition != findings.baseline]
    return [findings.baseline, *others[: MANY_CURVES - 1]]


@rc_context(RC)
def learning_curves(findings: Findings, metrics: pd.DataFrame) -> Figure:
    """Validation accuracy over the epochs: mean over seeds, and a band; see `curves.band`.

    A condition's curve is over its finished runs; while it has none, over those under way.
    The vertical axis leaves out the steep first third.
    """
    encoding = encode(findings)
    panels = list(dict.fromkeys(encoding.panels.values())) or [""]
    figure = Drawing(figsize=(WIDTH, 3.6))
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(wspace=0.06)
    grid[0].set_ylabel(formats.metric_name(column(metrics)))
    groups = dict(list(metrics.groupby("condition", sort=False))) if len(metrics) else {}
    shown = [condition for condition in best(findings) if condition in groups]
    looks = encoding.looks
    curves = {name: curve for name in looks if name in shown and len(curve := band(groups[name], name))}
    encoding = encoding.only(name for name in looks if name in curves or len(looks) <= MANY_CURVES)
    for axes, panel in zip(grid, panels, strict=True):
        axes.set_xlabel("Epoch")
        axes.set_title(panel, loc="left", fontsize=9)
    if not curves:
        say(grid[0], "no epoch finished yet")
        fit(figure, *grid)
        return figure
    for axes, panel in zip(grid, panels, strict=True):
        inside = {name: curve for name, curve in curves.items() if encoding.panels.get(name, "") == panel}
        _draw(axes, inside, encoding)
        _leave_out_the_rise(axes, list(curves.values()))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    if encoding.direct:
        ends = {condition: (curve.index[-1], curve["mean"].iloc[-1]) for condition, curve in curves.items()}
        _label_ends(grid[0], ends, encoding.looks)
    encoding.legend_unless_direct(figure, grid[0], lines=True)
    fit(figure, *grid)
    return figure


@rc_context(RC)
def all_curves(findings: Findings, metrics: pd.DataFrame) -> Figure:
    """Training loss and every other validation metric over the epochs: mean over seeds, a panel for each.

    Conditions and runs are those of `learning_curves`.
    """
    encoding, names = encode(findings), others(metrics)
    groups = dict(list(metrics.groupby("condition", sort=False)))
    shown = set(best(findings)) & groups.keys()
    looks = [name for name in encoding.looks if name in shown]
    encoding = encoding.only(looks)
    rows = -(-len(names) // ACROSS)
    figure = Drawing(figsize=(WIDTH, 1.9 * rows + 0.6))
    grid = figure.subplots(rows, ACROSS, squeeze=False).ravel()
    figure.subplots_adjust(wspace=0.35, hspace=0.5)
    for axes in grid[len(names) :]:
        axes.remove()
    for axes, name in zip(grid, names, strict=False):
        words = formats.metric_name(name) if name.startswith("validation_") else name.replace("_", " ")
        axes.set_title(words, loc="left", fontsize=8)
        for condition in looks:
            curve = band(groups[condition], condition, name)
            if len(curve):
                style, single = encoding.looks[condition], len(curve) == 1
                axes.plot(
                    curve.index,
                    curve["mean"],
                    color=style.color,
                    linestyle=style.line,
                    marker=style.marker if single else "",
                    linewidth=BASELINE_WIDTH if encoding.levels and condition == encoding.baseline else 1.2,
                )
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
        axes.tick_params(labelsize=7)
    encoding.legend(figure, grid[ACROSS * (rows - 1)], lines=True)
    fit(figure, *grid[: len(names)])
    return figure


def _draw(axes: Axes, curves: Mapping[str, pd.DataFrame], encoding: Encoding) -> None:
    shade = 0.8 / max(len(curves), 6)
    for condition, curve in curves.items():
        style, epochs = encoding.looks[condition], curve.index
        axes.fill_between(epochs, curve["low"], curve["high"], color=style.color, alpha=shade, linewidth=0)
        single = style.marker if len(curve) == 1 else ""
        (line,) = axes.plot(epochs, curve["mean"], color=style.color, linestyle=style.line, marker=single)
        if encoding.levels and condition == encoding.baseline:
            line.set_linewidth(BASELINE_WIDTH)


def _leave_out_the_rise(axes: Axes, curves: Sequence[pd.DataFrame]) -> None:
    """Limits around the last two thirds of training, where conditions differ by what matters."""
    last = max(curve.index[-1] for curve in curves)
    late = [curve[curve.index >= min(1 + last / 3, curve.index[-1])] for curve in curves]
    low, high = min(curve["min"].min() for curve in late), max(curve["max"].max() for curve in late)
    margin = 0.05 * (high - low) or 0.5
    axes.set_xlim(min(1, last - 1), last)
    axes.set_ylim(low - margin, high + margin)


def _label_ends(axes: Axes, ends: Mapping[str, tuple[float, float]], look: Mapping[str, Look]) -> None:
    """Name every curve to the right of the axes, with a line to where it ends."""
    data_to_axes = axes.transData - axes.transAxes
    starts = [tuple(data_to_axes.transform(end)) for end in ends.values()]
    line_height = 12 / 72 * axes.figure.dpi / axes.get_window_extent().height
    places = placement.spread([y for _, y in starts], line_height, 0.0, 1.0)
    for condition, (x, y), place in zip(ends, starts, places, strict=True):
        line = ":" if x < 0.99 else "-"  # of a curve that ends early, not to be taken for the curve
        color = look[condition].color
        axes.plot(
            (x, 1.03), (y, place), line, color=color, linewidth=0.7, transform=axes.transAxes, clip_on=False
        )
        axes.text(1.04, place, condition, transform=axes.transAxes, va="center")
