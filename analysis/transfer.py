"""Gains in classification beside gains in segmentation, from their record: `make figures`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from ablate.results import figures, formats, statistics
from ablate.results.figures.canvas import blank, fit
from ablate.results.figures.style import COLORS, FAINT, INK, RC
from ablate.results.tables import Table
from ablate.results.tables.table import difference, words

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
BASELINE = "lsa"
DRAWN, TRAINED = "random weights", "weights of classification"


def main(output: Path = EXPERIMENTS) -> None:
    """Write experiments/segmentation/figures/transfer and tables/transfer into `output`."""
    folder = EXPERIMENTS / "segmentation"
    if not (folder / "results.csv").exists():
        return
    gains = differences(folder)
    for part in ("figures", "tables"):
        (output / "segmentation" / part).mkdir(parents=True, exist_ok=True)
    paths = figures.save(draw(gains), output / "segmentation" / "figures" / "transfer", formats=("svg",))
    paths += tabulate(gains).save(output / "segmentation" / "tables")
    print(f"transfer: {len(paths)} files")


def differences(folder: Path) -> dict[str, pd.DataFrame]:
    """Return differences from the baseline in points, operators × seeds, of each task and beginning."""
    classified = pd.read_csv(folder / "classification.csv")
    segmented = pd.read_csv(folder / "results.csv", keep_default_na=False, na_values=[""])
    from_weights = segmented["task.init"].str.startswith("study:")
    parts = {
        "classification": (classified, "test_top1"),
        DRAWN: (segmented[~from_weights], "test_miou"),
        TRAINED: (segmented[from_weights], "test_miou"),
    }
    found = {}
    for name, (runs, metric) in parts.items():
        table = runs.pivot(index="op", columns="seed", values=metric)
        found[name] = (
            (table - table.loc[BASELINE]).drop(index=BASELINE).loc[list(dict.fromkeys(runs["op"]))[1:]]
        )
    return found


def correlation(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    """Return Pearson's correlation of the operators' mean differences, and Fisher's 95 % interval."""
    r = float(np.corrcoef(one.mean(axis=1), other.mean(axis=1))[0, 1])
    half = 1.959964 / math.sqrt(len(one) - 3) if len(one) > 3 else math.inf
    return r, (math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))


def tabulate(gains: dict[str, pd.DataFrame]) -> Table:
    """A row for each operator: what it changes in classification and in segmentation."""
    whole = {
        name: {op: statistics.t_interval(row.to_numpy()) for op, row in table.iterrows()}
        for name, table in gains.items()
    }
    digits = formats.decimals(interval for column in whole.values() for interval in column.values())
    titles = {"classification": "Top-1 (pp)", DRAWN: f"mIoU (pp), {DRAWN}", TRAINED: f"mIoU (pp), {TRAINED}"}
    rows = [
        {
            "Operator": words(str(op)),
            **{
                titles[name]: difference(float(table.loc[op].mean()), whole[name][op], digits)
                for name, table in gains.items()
            },
        }
        for op in gains["classification"].index
    ]
    said = [
        f"{name}: r = {r:.2f} [{low:.2f}, {high:.2f}]"
        for name in (DRAWN, TRAINED)
        for r, (low, high) in [correlation(gains["classification"], gains[name])]
    ]
    count, seeds = gains["classification"].shape
    note = (
        f"Differences from {BASELINE}, paired by seed, n = {seeds}, with 95 % Student's t intervals. "
        f"Correlation of the {count} operators' means with those of classification, and Fisher's 95 % "
        f"interval: {'; '.join(said)}."
    )
    return Table("transfer", "Gains in two tasks", rows, note)


@rc_context(RC)
def draw(gains: dict[str, pd.DataFrame]) -> Figure:
    """One mark per operator and beginning: full from random weights, hollow from those of classification."""
    figure, axes = blank(3.8)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    across = gains["classification"]
    for name, full in ((DRAWN, True), (TRAINED, False)):
        for number, (op, row) in enumerate(gains[name].iterrows()):
            color = COLORS[number]
            x, y = across.loc[op].mean(), row.mean()
            wide, high = (
                statistics.t_interval(across.loc[op].to_numpy()),
                statistics.t_interval(row.to_numpy()),
            )
            axes.plot(wide, (y, y), color=color, linewidth=0.8, alpha=0.6)
            axes.plot((x, x), high, color=color, linewidth=0.8, alpha=0.6)
            axes.plot(x, y, "o", color=color, markerfacecolor=color if full else "white", markersize=6)
            if full:
                place = {"xytext": (6, 5)} if number % 2 == 0 else {"xytext": (-6, 5), "ha": "right"}
                axes.annotate(str(op), (x, y), textcoords="offset points", fontsize=8, color=INK, **place)
    axes.set_xlabel("classification: top-1, difference from lsa, pp")
    axes.set_ylabel("segmentation: mIoU, difference from lsa, pp")
    axes.set_title(f"full: {DRAWN}; hollow: {TRAINED}; lines: 95 % intervals", fontsize=8, loc="left")
    fit(figure, axes)
    return figure


if __name__ == "__main__":
    main()
