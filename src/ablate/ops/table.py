"""The zoo as a table: every entry with its axes and its cost at one reference shape."""

from __future__ import annotations

from ablate.ops import costs, registry

DIM, HEADS, HEIGHT, WIDTH = 96, 3, 56, 56  # stage 1 of Swin-T at 224×224
COLUMNS = ("operator", "channel setting", "spatial processing", "parameters", "MACs", "paper")


def rows() -> list[tuple[str, ...]]:
    """One row an operator: costs at 96 channels, 3 heads, a map of 56×56."""
    found: list[tuple[str, ...]] = []
    for name in registry.names():
        entry = registry.spec(name)
        axes = (name, entry.channel_setting, entry.spatial_processing)
        found.append((*axes, *_cost(name), entry.cited()))
    return found


def _cost(name: str) -> tuple[str, str]:
    """Return parameters and MACs; dashes for an operator of somebody's own that cannot be built here."""
    try:
        module = registry.create(name, DIM, heads=HEADS, resolution=(HEIGHT, WIDTH))
        macs = costs.macs(module, 1, HEIGHT, WIDTH, DIM)
    except Exception:  # `ablate check-op` shows it
        return "–", "–"
    return f"{costs.parameters(module):,}", f"{macs / 1e6:.1f} M"


def markdown() -> str:
    """The table for the README."""
    shown = [[cell.replace("|", r"\|") for cell in row] for row in rows()]
    lines = [
        COLUMNS,
        ["---", "---", "---", "--:", "--:", "---"],
        *([f"`{row[0]}`", *row[1:]] for row in shown),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def show() -> None:
    """Print the table as the terminal's width allows."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        caption="parameters and MACs at 96 channels, 3 heads, 56×56 (stage 1 of Swin-T)",
        caption_justify="left",
    )
    for column in COLUMNS:
        right = column in ("parameters", "MACs")
        table.add_column(column, justify="right" if right else "left", no_wrap=right or column == "operator")
    for row in rows():
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    for plugin, reason in registry.broken().items():
        console.print(f"not loaded: {plugin}: {reason}", markup=False, soft_wrap=True)
