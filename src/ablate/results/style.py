"""How figures look: legible in print, to the colour-blind, and the same in every figure of a study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

INK = "#1b1b1f"
PAPER = "#fefefe"  # unlike any colour below, so that a page can replace it by its own
FAINT = "#8c8c94"

# Okabe and Ito (2008) without yellow, which paper swallows; black is the baseline's.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
LINES = ((0, ()), (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "ablate",  # identifiers that do not change from one drawing to the next
}


@dataclass(frozen=True)
class Look:
    """The colour, marker and line by which a condition is known."""

    color: str
    marker: str
    line: tuple[int, tuple[float, ...]]


def looks(conditions: Iterable[str], baseline: str) -> dict[str, Look]:
    """A look for every condition; markers and lines differ where colours come round again."""
    others = [condition for condition in conditions if condition != baseline]
    return {
        baseline: Look(INK, "o", (0, ())),
        **{
            condition: Look(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[(i + 1) % len(LINES)])
            for i, condition in enumerate(others)
        },
    }
