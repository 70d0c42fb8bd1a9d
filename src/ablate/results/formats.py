"""Numbers and names as a reader meets them, the same in tables, figures and the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ablate.store import metrics

if TYPE_CHECKING:
    from ablate.results.statistics import Interval

NOTHING = "–"
MINUS = "−"

# From which value on a unit is used: tenths of a million read better than hundreds of a thousand.
_UNITS = ((1e9, 1e9, " G"), (1e5, 1e6, " M"), (1e3, 1e3, " k"))


def metric_name(metric: str) -> str:
    """`test_top1` → 'Test top-1 (%)'."""
    found = metrics.find(metric)
    words = metric.removesuffix(found.name).replace("_", " ") + found.words
    return words[:1].upper() + words[1:] + (f" ({found.unit})" if found.unit else "")


def difference_name(metric: str) -> str:
    """The name of a difference, with its unit."""
    return "Difference (pp)" if in_percent(metric) else "Difference"


def in_percent(metric: str) -> bool:
    """Return True if a metric is in percent, so that its differences are percentage points."""
    return metrics.find(metric).unit == "%"


def human(value: float) -> str:
    """Three digits and a unit: 0.46 M, 12.3 M, 4.51 G."""
    if not math.isfinite(value):
        return NOTHING
    for least, scale, unit in _UNITS:
        if value >= least:
            return _three_digits(value / scale) + unit
    return _three_digits(value)


def memory(count: float) -> str:
    """Bytes in MiB or GiB, three digits."""
    if not math.isfinite(count):
        return NOTHING
    scale, unit = (2**30, "GiB") if count >= 1000 * 2**20 else (2**20, "MiB")
    return f"{_three_digits(count / scale)} {unit}"


def share(value: float) -> str:
    """A share in percent with two digits: 2.1 %, 34 %."""
    if not math.isfinite(value):
        return NOTHING
    return f"{100 * value:.{1 if value < 0.0995 else 0}f} %"


def decimals(intervals: Iterable[Interval]) -> int:
    """Number of decimals for intervals of this width: two digits of their half-width.

    One number for a whole column, from the median interval, so that the column can be read down.
    """
    widths = sorted((high - low) / 2 for low, high in intervals if math.isfinite(high - low))
    if not widths or widths[len(widths) // 2] <= 0:
        return 2
    return min(max(1 - math.floor(math.log10(widths[len(widths) // 2])), 0), 4)


def plain(value: float, digits: int) -> str:
    """A number with so many decimals and a true minus sign."""
    return f"{value:.{digits}f}".replace("-", MINUS) if math.isfinite(value) else NOTHING


def signed(value: float, digits: int) -> str:
    """A difference, its sign always written."""
    return f"{value:+.{digits}f}".replace("-", MINUS) if math.isfinite(value) else NOTHING


def interval(bounds: Interval, digits: int) -> str:
    """'[−0.12, +0.57]', or an empty string where there is none."""
    low, high = bounds
    return f"[{signed(low, digits)}, {signed(high, digits)}]" if math.isfinite(high - low) else ""


def probability(p: float) -> str:
    """A p-value to three decimals."""
    if not math.isfinite(p):
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def counted(count: int, noun: str) -> str:
    """'1 run', '3 runs'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
