"""Accuracy against what it costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from matplotlib.transforms import Bbox, ScaledTranslation, Transform

from ablate.results import costs, formats
from ablate.results.comparisons import Findings
from ablate.results.figures import placement
from ablate.results.figures.canvas import blank, fit, say
from ablate.results.figures.encoding import BASELINE, encode, mark
from ablate.results.figures.style import FAINT, RC
from ablate.store.metrics import find

FRONT: dict[str, Any] = {"color": FAINT, "linewidth": 1.0, "linestyle": (0, (2, 2)), "zorder": 1}
MANY_MARKS = 36
LOG_RATIO = 3.5  # costs that differ by more are drawn on a logarithmic axis


@rc_context(RC)
def accuracy_against_macs(findings: Findings) -> Figure:
    """Mean over seeds with its 95 % t interval against the MACs of one image, and the Pareto front.

    Of more than MANY_MARKS conditions only the baseline and those on the front have names and intervals.
    """
    shown = [summary for summary in findings.summaries if summary.n and math.isfinite(summary.macs)]
    encoding = encode(findings)
    figure, axes = blank(3.6)
    axes.set_xlabel("MACs of one image (millions)")
    axes.set_ylabel(formats.metric_name(findings.metric))
    if not shown:
        say(axes, "no finished run yet")
        fit(figure, axes)
        return figure
    front = costs.pareto(shown, higher=find(findings.metric).higher)
    costly = [summary.macs for summary in shown]
    if max(costly) > LOG_RATIO * min(costly) > 0:
        axes.set_xscale("log")
        axes.set_xlabel("MACs of one image (millions, logarithmic)")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda macs, _: f"{macs:g}"))
        axes.minorticks_off()
    crowded = len(encoding.looks) > MANY_MARKS
    if crowded:
        named = {*front, findings.baseline}
        rest = [summary for summary in shown if summary.condition not in named]
        axes.plot([s.macs / 1e6 for s in rest], [s.mean for s in rest], ".", color=FAINT, markersize=3)
        shown = [summary for summary in shown if summary.condition in named]
        encoding = encoding.only(summary.condition for summary in shown)
    macs = [summary.macs / 1e6 for summary in shown]
    axes.update_datalim([(x, y) for x, s in zip(macs, shown, strict=True) for y in (s.mean, *s.interval)])
    axes.margins(x=0.12, y=0.08)
    axes.autoscale_view()
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    encoding.legend_unless_direct(figure, axes, lines=False)
    fit(figure, axes)
    places = _side_by_side(axes, macs)
    means = {summary.condition: (summary.macs / 1e6, summary.mean) for summary in shown}
    taken = []
    if len(front) > 1:
        corners = [means[name] for name in front]
        axes.step(*zip(*corners, strict=True), where="post", **FRONT)
        for (left, low), (right, high) in itertools.pairwise(corners):
            lines = ((left, low), (right, low)), ((right, low), (right, high))
            taken += [Bbox(axes.transData.transform(ends)).padded(1) for ends in lines]
    for x, place, summary in zip(macs, places, shown, strict=True):
        style = encoding.looks[summary.condition]
        axes.plot((x, x), summary.interval, color=style.color, alpha=0.8, transform=place, zorder=2)
        if encoding.levels and summary.condition == findings.baseline:
            axes.plot(x, summary.mean, **BASELINE, transform=place, zorder=3)
        axes.plot(x, summary.mean, **mark(style), transform=place, zorder=3)
        reach = summary.interval if math.isfinite(summary.interval[0]) else (summary.mean, summary.mean)
        taken.append(Bbox(place.transform([(x, end) for end in reach])).padded(2))
        taken.append(Bbox(place.transform([(x, summary.mean)] * 2)).padded(6))
    if encoding.direct:
        points = [(x, summary.mean) for x, summary in zip(macs, shown, strict=True)]
        placement.label_points(axes, points, places, [summary.condition for summary in shown], taken)
    return figure


def _side_by_side(axes: Axes, xs: Sequence[float], gap: float = 6.0) -> list[Transform]:
    """Data transforms for marks at these x that keep them at least `gap` points apart."""
    pixels = axes.transData.transform([(x, axes.get_ylim()[0]) for x in xs])[:, 0]
    frame, dpi = axes.get_window_extent(), axes.figure.dpi
    places = placement.spread(pixels.tolist(), gap * dpi / 72, frame.x0, frame.x1)
    inches = axes.figure.dpi_scale_trans
    shifts = [(place - pixel) / dpi for place, pixel in zip(places, pixels, strict=True)]
    return [axes.transData + ScaledTranslation(shift, 0, inches) for shift in shifts]
