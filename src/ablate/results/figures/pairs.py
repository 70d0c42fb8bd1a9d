"""Slope chart: every seed's pair of runs, from the baseline to each condition."""

from __future__ import annotations

import math

from matplotlib import rc_context
from matplotlib.figure import Figure

from ablate.results import formats
from ablate.results.comparisons import Findings, by_seed
from ablate.results.figures.canvas import WIDTH, Drawing, fit, say
from ablate.results.figures.style import FAINT, GAIN, INK, LOSS, RC
from ablate.store.metrics import find

MOST, ACROSS = 8, 4  # panels of a figure, of a row
LONG_NAME = 20  # characters; longer names are broken between their levels


@rc_context(RC)
def slopes(findings: Findings) -> Figure:
    """A panel for each condition, the MOST that differ most: one line per seed, and the mean.

    Lines that rise and fall together show what pairing by seed is worth: the seed's own luck is in both ends.
    """
    paired = [each for each in findings.comparisons if each.paired and each.n]
    ranked = sorted(paired, key=lambda each: -abs(each.difference))[:MOST]
    chosen = [each for each in paired if each in ranked]
    rows = max(math.ceil(len(chosen) / ACROSS), 1)
    figure = Drawing(figsize=(WIDTH, 0.5 + 2.0 * rows))
    panels = figure.subplots(rows, ACROSS, sharey=True, squeeze=False).flatten()
    theirs = by_seed(findings.groups[findings.baseline], findings.metric)
    up = 1 if find(findings.metric).higher else -1
    for panel, each in zip(panels, chosen, strict=False):
        mine = by_seed(findings.groups[each.condition], findings.metric)
        for seed in each.seeds:
            change = up * (mine[seed] - theirs[seed])
            color = GAIN if change > 0 else LOSS if change < 0 else FAINT
            ends = (theirs[seed], mine[seed])
            panel.plot((0, 1), ends, color=color, linewidth=1, marker="o", markersize=2.5)
        means = (each.mean_baseline, each.mean_condition)
        panel.plot((0, 1), means, color=INK, linewidth=2, marker="o", markersize=4)
        gained = sum(up * difference > 0 for difference in each.differences)
        panel.set_title(f"{_wrapped(each.condition)}\n{gained} of {each.n} better", fontsize=8)
        panel.set_xticks([0, 1], ["baseline", "condition"], fontsize=7)
        panel.set_xlim(-0.35, 1.35)
        panel.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
    used = panels[: max(len(chosen), 1)]
    for panel in panels[len(used) :]:
        panel.remove()
    if not chosen:
        say(panels[0], "no pair yet")
    panels[0].set_ylabel(formats.metric_name(findings.metric))
    lines = 1 + max((_wrapped(each.condition).count("\n") + 1 for each in chosen), default=1)
    figure.subplots_adjust(hspace=0.2 + 0.13 * lines, wspace=0.12)
    fit(figure, *used)
    return figure


def _wrapped(name: str) -> str:
    return name.replace(", ", ",\n") if len(name) > LONG_NAME else name
