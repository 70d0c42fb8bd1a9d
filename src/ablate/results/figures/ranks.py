"""Critical-difference diagram: average ranks over places, and the groups that tests do not distinguish."""

from __future__ import annotations

from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.results import formats
from ablate.results.figures.canvas import blank, fit
from ablate.results.figures.differences import wrapped
from ablate.results.figures.style import COLORS, FAINT, INK, RC
from ablate.results.ranks import Ranks

ROW, STEP = 0.3, 0.55  # inches, of a condition; rows, of a bar
MANY = 10  # ticks
NEMENYI, WILCOXON = INK, COLORS[0]


@rc_context(RC)
def critical_difference(found: Ranks) -> Figure:
    """Conditions on an axis of average ranks, the best to the left; bars join what is not distinguished.

    The diagram of Demšar (2006, "Statistical comparisons of classifiers over multiple data sets", figure 1),
    with all names on one side and a second set of bars for Wilcoxon's test; see `results.ranks`.
    """
    count, bars = len(found.conditions), len(found.nemenyi) + len(found.wilcoxon)
    top = -(bars + 2.6) * STEP  # row of the axis, above those of the conditions
    figure, axes = blank(0.5 + ROW * (count - top))
    axes.set_xlim(1, count)
    axes.set_ylim(count - 0.5, top)
    axes.plot(
        (1, 1 + found.critical), (top + STEP,) * 2, color=FAINT, marker="|", linewidth=1.6, clip_on=False
    )
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
    axes.text(1.02, top + STEP, f"critical difference {found.critical:.2f}", color=FAINT, **beside)
    row = top + STEP
    for groups, name, color in ((found.nemenyi, "Nemenyi", NEMENYI), (found.wilcoxon, "Wilcoxon", WILCOXON)):
        for place, (first, last) in enumerate(groups):
            row += STEP
            ends = (found.averages[first] - 0.02, found.averages[last] + 0.02)
            axes.plot(
                ends, (row, row), color=color, linewidth=3.5, solid_capstyle="butt", clip_on=False, zorder=3
            )
            if not place:
                axes.text(1.02, row, name, color=color, **beside)
    _name(axes, found, top)
    for row, average in enumerate(found.averages):
        axes.text(1.02, row, formats.plain(average, 2), **beside)
    fit(figure, axes)
    return figure


def _name(axes: Axes, found: Ranks, top: float) -> None:
    """Draw a line from every name to its average rank on the axis."""
    for row, average in enumerate(found.averages):
        axes.plot((1, average, average), (row, row, top), color=FAINT, linewidth=0.9)
        axes.plot(average, top, "o", color=INK, markersize=4, clip_on=False, zorder=4)
    axes.set_yticks(range(len(found.conditions)), [wrapped(name) for name in found.conditions])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    count = len(found.conditions)
    axes.set_xticks(range(1, count + 1, -(-count // MANY)))
    axes.set_xlabel(f"average rank over {found.places} places, 1 is the best")
