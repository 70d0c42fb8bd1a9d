"""Style of figures: legible in print and to the colour-blind, and the same in all figures of a study."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

INK = "#1b1b1f"
PAPER = "#fefefe"  # unlike any colour below, so that a page can replace it by its own
FAINT = "#8c8c94"

# Okabe and Ito (2008) without yellow, which paper swallows; black is the baseline's.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GAIN, LOSS = COLORS[2], COLORS[1]  # of steps up and down
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
# Conditions that many studies share, each at its own place in the colours; others take what is free.
PLACES = (
    *("lsa", "dwconv", "elsa", "dynamic_filter", "lsa_neighborhood", "na"),
    *("conv", "lesa", "outlook", "involution", "ddf", "sasa"),
    *("elsa_equation", "lesa_qr", "csa", "d_dwconv", "i_d_dwconv", "slide"),
    *("san_pairwise", "san_patchwise", "condconv", "dynamic_conv", "carafe", "lesa_window"),
    *("dinat", "ls_conv", "qna", "attn_conv", "manhattan", "focal"),
    *("aggregated", "dilated_reparam", "dcnv3", "dcnv4", "contmix", "rasa", "plg"),
)
FACTORS = {  # place of a factor's colour: warm and cold by turns, the two axes side by side
    **{"op": 0, "heads": 1, "channel": 4, "ghost_lambda": 3, "ghost_gamma": 4},
    **{"terms": 0, "weights": 0, "norm": 3, "region": 2, "border": 5, "kernel": 1, "variant": 0},
}
LINES = ((0, ()), (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (1, 2.5)))

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
    "text.parse_math": False,  # names are data: `$` in them is a dollar sign, as in the tables
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
    """The colour, marker and line by which a condition is known; its mark is full or hollow."""

    color: str
    marker: str
    line: tuple[int, tuple[float, ...]]
    filled: bool = True


def looks(conditions: Iterable[str], baseline: str) -> dict[str, Look]:
    """A look for every condition: black for the baseline, the same in every study for what has a place.

    Markers and lines differ where colours come round again.
    """
    others = [condition for condition in conditions if condition != baseline]
    known = [name for name in others if name in PLACES]
    free = [place for place in range(len(COLORS) * len(MARKERS)) if place not in map(PLACES.index, known)]
    places = {name: PLACES.index(name) for name in known}
    places |= dict(zip((name for name in others if name not in places), itertools.cycle(free)))
    return {baseline: Look(INK, "o", LINES[0]), **{name: _look(places[name]) for name in others}}


def factor_color(factor: str) -> str:
    """The colour of a factor, the same in every study; by its short name or its dotted one."""
    name = re.split(r"[./]", factor)[-1]
    return COLORS[FACTORS.get(name, sum(map(ord, name))) % len(COLORS)]


def _look(place: int) -> Look:
    return Look(COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)], LINES[(place + 1) % len(LINES)])
