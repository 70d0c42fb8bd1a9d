"""Forest plot of effects by host, data set or study, with the mean over them."""

from __future__ import annotations

import math

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from ablate.results import formats
from ablate.results.beyond import Beyond
from ablate.results.figures.canvas import blank, fit
from ablate.results.figures.style import COLORS, FAINT, INK, RC

MOST = 12  # effects of one figure
HEIGHT = 0.28  # of a diamond, in rows


@rc_context(RC)
def places(metric: str, found: Beyond) -> Figure:
    """A block of rows for each condition: dots for places, a diamond for the mean, a line for a new place.

    Args:
        metric: that is compared.
        found: the effects; of more than MOST the first ones are drawn.
    """
    effects = found.effects[:MOST]
    count = sum(len(effect.places) + 2 for effect in effects)
    figure, axes = blank(0.7 + 0.24 * count)
    axes.axvline(0, color=INK, linewidth=0.8)
    digits = formats.decimals(effect.interval for effect in effects)
    row, ticks = 0.0, []
    for effect in effects:
        ticks.append((row, effect.condition, "bold"))
        for place in effect.places:
            row += 1
            ticks.append((row, place.name, "normal"))
            axes.plot(place.interval, (row, row), color=FAINT, linewidth=1.6, solid_capstyle="butt")
            axes.plot(place.difference, row, "o", color=INK, markersize=4)
        row += 1
        ticks.append((row, "mean over places", "normal"))
        if math.isfinite(effect.prediction[0]):
            axes.plot(effect.prediction, (row, row), color=COLORS[0], linewidth=0.9)
        low, high = effect.interval
        corners = [(low, row), (effect.mean, row - HEIGHT), (high, row), (effect.mean, row + HEIGHT)]
        axes.add_patch(Polygon(corners, color=COLORS[0], linewidth=0))
        text = f"{formats.signed(effect.mean, digits)} {formats.interval(effect.interval, digits)}"
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
        row += 1
    axes.set_ylim(row - 0.4, -0.6)
    axes.set_yticks([place for place, _, _ in ticks], [name for _, name, _ in ticks])
    for label, (_, _, weight) in zip(axes.get_yticklabels(), ticks, strict=True):
        label.set_fontweight(weight)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
    unit = ", pp" if formats.in_percent(metric) else ""
    words = formats.metric_name(metric).removesuffix(" (%)")
    axes.set_xlabel(f"{words}: difference from {found.baseline}{unit}")
    axes.autoscale_view(scaley=False)
    fit(figure, axes)
    return figure
