"""The three figures of a study. Every function returns a figure; `save` writes it.

Figures are drawn without pyplot and without a clock, so that drawing again gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, ScaledTranslation, Transform

from ablate.results import formats, placement
from ablate.results.comparisons import Findings
from ablate.results.style import FAINT, INK, PAPER, RC, Look, looks
from ablate.store.files import write_atomically
from ablate.store.folder import FINISHED

WIDTH = 6.4  # inches: the text width of most journals
PNG_DPI = 200
LOG_RATIO = 10  # costs that differ by more are drawn on a logarithmic axis
CURVE = "validation_top1"
LONG_NAME, MANY_NAMES = 24, 8  # beyond either, names stand in a legend and not at their marks
MEAN: dict[str, Any] = {"markersize": 8, "markeredgecolor": PAPER}


@rc_context(RC)
def forest(findings: Findings) -> Figure:
    """Paired differences against the baseline: mean, 95 % t interval, and every seed's difference."""
    compared = findings.comparisons
    look = looks(_conditions(findings), findings.baseline)
    digits = formats.decimals(comparison.interval for comparison in compared)
    figure, axes = _figure(height=0.9 + 0.42 * max(len(compared), 1))
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, comparison in enumerate(compared):
        style = look[comparison.condition]
        below = row + 0.24 + 0.05 * (np.arange(comparison.n) % 3)
        seed: dict[str, Any] = {"color": style.color, "alpha": 0.75, "markersize": 3, "markeredgewidth": 0}
        axes.plot(comparison.differences, below, "o", **seed)
        axes.plot(comparison.interval, (row, row), color=style.color, linewidth=2, solid_capstyle="butt")
        axes.plot(comparison.difference, row, style.marker, color=style.color, **MEAN)
        figures = formats.interval(comparison.interval, digits)
        text = f"{formats.signed(comparison.difference, digits)} {figures}" if comparison.n else "no pair yet"
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_ylim(max(len(compared), 1) - 0.4, -0.6)
    axes.set_yticks(range(len(compared)), [comparison.condition for comparison in compared])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
    metric = formats.metric_name(findings.metric).removesuffix(" (%)")
    baseline = findings.baseline if len(findings.baseline) <= LONG_NAME else "the baseline"
    unit = ", pp" if formats.is_accuracy(findings.metric) else ""
    axes.set_xlabel(f"{metric}: difference from {baseline}{unit}")
    if not compared:
        _say(axes, "only one condition: nothing to compare")
    elif not any(comparison.n for comparison in compared):
        axes.set_xticks([0])
    _fit(figure, axes)
    return figure


@rc_context(RC)
def accuracy_against_macs(findings: Findings) -> Figure:
    """Mean over seeds with its 95 % t interval against the MACs of one image."""
    shown = [summary for summary in findings.summaries if summary.n and math.isfinite(summary.macs)]
    look = looks(_conditions(findings), findings.baseline)
    figure, axes = _figure(height=3.6)
    axes.set_xlabel("MACs of one image (millions)")
    axes.set_ylabel(formats.metric_name(findings.metric))
    if not shown:
        _say(axes, "no finished run yet")
        _fit(figure, axes)
        return figure
    macs = [summary.macs / 1e6 for summary in shown]
    if max(macs) > LOG_RATIO * min(macs) > 0:
        axes.set_xscale("log")
    axes.update_datalim([(x, y) for x, s in zip(macs, shown, strict=True) for y in (s.mean, *s.interval)])
    axes.margins(x=0.12, y=0.08)
    axes.autoscale_view()
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    _legend_unless_direct(figure, axes, look, lines=False)
    _fit(figure, axes)
    marks = _side_by_side(axes, macs)
    taken = []
    for x, mark, summary in zip(macs, marks, shown, strict=True):
        style = look[summary.condition]
        axes.plot((x, x), summary.interval, color=style.color, alpha=0.8, transform=mark, zorder=2)
        axes.plot(x, summary.mean, style.marker, color=style.color, **MEAN, transform=mark, zorder=3)
        ends = summary.interval if math.isfinite(summary.interval[0]) else (summary.mean, summary.mean)
        taken.append(Bbox(mark.transform([(x, end) for end in ends])).padded(2))
        taken.append(Bbox(mark.transform([(x, summary.mean)] * 2)).padded(6))
    if _direct(look):
        points = [(x, summary.mean) for x, summary in zip(macs, shown, strict=True)]
        placement.label_points(axes, points, marks, [summary.condition for summary in shown], taken)
    return figure


@rc_context(RC)
def learning_curves(findings: Findings, metrics: pd.DataFrame) -> Figure:
    """Validation accuracy over the epochs: mean over seeds, and the range of the seeds.

    A condition's curve is over its finished runs; while it has none, over those under way.
    The vertical axis leaves out the steep first third.
    """
    look = looks(_conditions(findings), findings.baseline)
    figure, axes = _figure(height=3.6)
    axes.set_xlabel("Epoch")
    axes.set_ylabel(formats.metric_name(CURVE))
    curves = {condition: curve for condition in look if len(curve := _curve(metrics, condition))}
    if not curves:
        _say(axes, "no epoch finished yet")
        _fit(figure, axes)
        return figure
    shade = 0.8 / max(len(curves), 6)
    for condition, curve in curves.items():
        style, epochs = look[condition], curve.index
        axes.fill_between(epochs, curve["min"], curve["max"], color=style.color, alpha=shade, linewidth=0)
        single = style.marker if len(curve) == 1 else ""
        axes.plot(epochs, curve["mean"], color=style.color, linestyle=style.line, marker=single)
    _leave_out_the_rise(axes, list(curves.values()))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    if _direct(look):
        ends = {condition: (curve.index[-1], curve["mean"].iloc[-1]) for condition, curve in curves.items()}
        _label_ends(axes, ends, look)
    _legend_unless_direct(figure, axes, look, lines=True)
    _fit(figure, axes)
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.svg and `stem`.png, each whole or not at all, and return their paths."""
    nameless = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    quick = {"compress_level": 1}
    svg, png = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("svg", "png"))
    with rc_context(RC):
        write_atomically(svg, lambda file: figure.savefig(file, format="svg", metadata=nameless))
        write_atomically(
            png,
            lambda file: figure.savefig(
                file, format="png", dpi=PNG_DPI, metadata={"Software": None}, pil_kwargs=quick
            ),
        )
    return [svg, png]


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots()


def _fit(figure: Figure, axes: Axes, pad: float = 6.0) -> None:
    """Set the margins to what lies outside the axes. (The layout engines take several drawings.)"""
    inner, outer = axes.get_window_extent(), axes.get_tightbbox()
    assert outer is not None
    width, height = figure.bbox.width, figure.bbox.height
    figure.subplots_adjust(
        left=min((inner.x0 - outer.x0 + pad) / width, 0.5),
        right=max(1 - (outer.x1 - inner.x1 + pad) / width, 0.55),
        bottom=(inner.y0 - outer.y0 + pad) / height,
        top=1 - (outer.y1 - inner.y1 + pad) / height,
    )


def _leave_out_the_rise(axes: Axes, curves: Sequence[pd.DataFrame]) -> None:
    """Limits around the last two thirds of training, where conditions differ by what matters."""
    last = max(curve.index[-1] for curve in curves)
    late = [curve[curve.index >= min(1 + last / 3, curve.index[-1])] for curve in curves]
    low, high = min(curve["min"].min() for curve in late), max(curve["max"].max() for curve in late)
    margin = 0.05 * (high - low) or 0.5
    axes.set_xlim(min(1, last - 1), last)
    axes.set_ylim(low - margin, high + margin)


def _direct(look: Mapping[str, Look]) -> bool:
    """Whether names are few and short enough to stand beside what they name."""
    return len(look) <= MANY_NAMES and max(map(len, look)) <= LONG_NAME


def _legend_unless_direct(figure: Figure, axes: Axes, look: Mapping[str, Look], lines: bool) -> None:
    """Name all conditions in a legend below the axes, in a figure made higher by as much."""
    if _direct(look):
        return
    columns = 2 if max(map(len, look)) <= 1.5 * LONG_NAME else 1
    figure.set_figheight(figure.get_figheight() + 0.19 * math.ceil(len(look) / columns))
    handles = [
        Line2D([], [], color=style.color, label=condition, **_handle(style, lines))
        for condition, style in look.items()
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=columns, fontsize=8)


def _handle(style: Look, line: bool) -> dict[str, Any]:
    return {"linestyle": style.line} if line else {"linestyle": "", "marker": style.marker}


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


def _side_by_side(axes: Axes, xs: Sequence[float], gap: float = 6.0) -> list[Transform]:
    """Data transforms for marks at these x that keep them at least `gap` points apart."""
    pixels = axes.transData.transform([(x, axes.get_ylim()[0]) for x in xs])[:, 0]
    frame, dpi = axes.get_window_extent(), axes.figure.dpi
    places = placement.spread(pixels.tolist(), gap * dpi / 72, frame.x0, frame.x1)
    inches = axes.figure.dpi_scale_trans
    shifts = [(place - pixel) / dpi for place, pixel in zip(places, pixels, strict=True)]
    return [axes.transData + ScaledTranslation(shift, 0, inches) for shift in shifts]


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])


def _conditions(findings: Findings) -> list[str]:
    return [summary.condition for summary in findings.summaries]


def _curve(metrics: pd.DataFrame, condition: str) -> pd.DataFrame:
    """Mean, least and greatest over the seeds of one condition, by the epochs that all of them have."""
    if CURVE not in metrics:
        return pd.DataFrame()
    rows = metrics[(metrics["condition"] == condition) & np.isfinite(metrics[CURVE].astype(float))]
    finished = rows[rows["state"] == FINISHED]
    rows = finished if len(finished) else rows
    curve = rows.groupby("epoch")[CURVE].agg(["mean", "min", "max", "count"])
    return curve[curve["count"] == curve["count"].max()]
