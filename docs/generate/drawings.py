"""Drawings as SVG that is put into the page, so that they follow its light or dark colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape

ROW, BOX, TOP = 40, 130, 16
WIDTH = 760


def rooms(
    names: Sequence[str],
    ground: Sequence[str],
    imports: Counter[tuple[str, str]],
    title: Callable[[str], str],
) -> str:
    """Draw packages from the ground up, and an arc for each pair of which one imports the other.

    A thicker arc means more importing modules. The colour follows a package that is pointed at.
    """
    shown = list(reversed(names))
    height = TOP + ROW * (len(shown) + 1) + 10
    center = {name: TOP + ROW * row + 15 for row, name in enumerate(shown)}
    parts = [
        f'<div class="scroll"><svg class="drawing rooms" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The packages of ablate and their imports">'
    ]
    for name in shown:
        y = center[name]
        arcs = "".join(
            _arc(y, center[other], count, ROW * len(shown))
            for (importer, other), count in sorted(imports.items())
            if importer == name and other in center
        )
        parts += [
            f'<a href="generated/architecture/tour.html#room-{name}"><g class="room">{arcs}',
            _box(y, name),
            f"<title>{escape(title(name))}</title></g></a>",
        ]
    y = TOP + ROW * len(shown) + 15
    note = f"{', '.join(ground)}: every package may import them"
    parts += [
        f'<g class="ground">{_box(y, "the ground")}',
        f'<text x="{BOX + 16}" y="{y + 5}">{note}</text></g>',
    ]
    return "\n".join([*parts, "</svg></div>"]) + "\n"


def _box(y: float, name: str) -> str:
    """A package, around the height y."""
    return (
        f'<rect x="1" y="{y - 15}" width="{BOX}" height="30" rx="5"/>'
        f'<text class="name" x="{BOX / 2 + 1}" y="{y + 5}">{name}</text>'
    )


def _arc(start: float, end: float, count: int, longest: float) -> str:
    """An arc from an importing package down to the imported one, with its arrow there."""
    reach = 24 + abs(end - start) / longest * 1.3 * (WIDTH - BOX - 30)  # a curve comes to 3/4 of its controls
    left = BOX + 3
    width = min(1 + count / 5, 5)
    path = f"M{left} {start} C{left + reach:.0f} {start}, {left + reach:.0f} {end}, {left + 8} {end}"
    arrow = f"M{left + 8} {end - 4} L{left} {end} L{left + 8} {end + 4}"
    upwards = " upwards" if end < start else ""
    return (
        f'<path class="arc{upwards}" d="{path}" stroke-width="{width:.1f}"/>'
        f'<path class="arrow{upwards}" d="{arrow}"/>'
    )


def axes() -> str:
    """Draw the one equation: a region on the map, weights and norm, and filters over the channels."""
    cell = 18
    parts = [
        '<div class="scroll"><svg class="drawing axes" viewBox="0 0 860 348" role="img" '
        'aria-label="The two axes: spatial processing on the left, channel setting on the right">',
        '<rect class="frame spatial" x="6" y="52" width="556" height="288" rx="8"/>',
        '<rect class="frame channel" x="576" y="52" width="278" height="288" rx="8"/>',
        '<text class="axis" x="284" y="40">spatial processing</text>',
        '<text class="axis" x="715" y="40">channel setting</text>',
    ]
    left, top = 32, 100
    parts.append(f'<text class="head" x="{left + 81}" y="82">region Φ(i)</text>')
    for row in range(9):
        for column in range(9):
            inside = 2 <= row <= 6 and 2 <= column <= 6
            kind = "center" if (row, column) == (4, 4) else "tap" if inside else "outside"
            parts.append(_square(left + cell * column, top + cell * row, cell, kind))
    parts.append(f'<text class="on" x="{left + 4.5 * cell}" y="{top + 4.5 * cell + 5}">i</text>')
    parts.append(f'<text class="on" x="{left + 6.5 * cell}" y="{top + 2.5 * cell + 5}">j</text>')
    x, y = left + 4.8 * cell, top + 4.2 * cell
    parts.append(f'<path class="offset" d="M{x} {y} L{left + 6.2 * cell} {top + 2.9 * cell}"/>')
    parts.append(f'<text class="note" x="{left + 81}" y="292">Δ = j − i</text>')
    parts.append(f'<text class="note" x="{left + 81}" y="310">window, neighborhood,</text>')
    parts.append(f'<text class="note" x="{left + 81}" y="328">global</text>')
    strengths = [[_weight(row, column) for column in range(5)] for row in range(5)]
    parts += _grid(232, 136, cell, strengths, "weights A", "pairwise, hadamard,", "linear, static, …")
    total = sum(map(sum, strengths))
    normed = [[2.6 * value**1.6 / total * 6 for value in row] for row in strengths]
    parts += _grid(418, 136, cell, normed, "Norm(A)", "softmax, filter-norm,", "identity")
    parts += ['<path class="flow" d="M200 181 h24 m-6 -5 l6 5 l-6 5"/>']
    parts += ['<path class="flow" d="M332 181 h76 m-6 -5 l6 5 l-6 5"/>']
    parts += ['<path class="flow" d="M518 181 h78 m-6 -5 l6 5 l-6 5"/>']
    labels = ("one filter per head", "ghost head: + γ·s per channel", "one filter per channel (C)")
    for row, label in enumerate(labels):
        y = 92 + 80 * row
        for channel in range(6):
            shift = channel if row == 2 else channel // 3
            ghost = 1 if row == 1 and channel % 3 else 0
            for a in range(3):
                for b in range(3):
                    value = abs(((a + 1) * (b + 2) * (shift + 2)) % 17) / 17
                    value = min(1, abs(value + (0.35 if (a + b + channel) % 2 else -0.25) * ghost))
                    parts.append(_square(606 + 38 * channel + 10 * b, y + 10 * a, 10, "weight", value))
        parts.append(f'<text class="note" x="715" y="{y + 48}">{label}</text>')
    return "\n".join([*parts, "</svg></div>"]) + "\n"


def _weight(row: int, column: int) -> float:
    distance = (row - 2) ** 2 + (column - 2.6) ** 2
    return 1 / (1 + 0.45 * distance) + 0.16 * ((row * 3 + column * 5) % 4) / 4


def _grid(
    left: float, top: float, cell: float, values: list[list[float]], head: str, first: str, second: str
) -> list[str]:
    middle = left + 2.5 * cell
    squares = [
        _square(left + cell * column, top + cell * row, cell, "weight", min(1.0, value))
        for row, line in enumerate(values)
        for column, value in enumerate(line)
    ]
    return [
        f'<text class="head" x="{middle}" y="82">{head}</text>',
        *squares,
        f'<text class="note" x="{middle}" y="292">{first}</text>',
        f'<text class="note" x="{middle}" y="310">{second}</text>',
    ]


def _square(x: float, y: float, side: float, kind: str, strength: float = 1.0) -> str:
    opacity = "" if kind != "weight" else f' style="fill-opacity:{strength:.2f}"'
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}"{opacity}/>'
