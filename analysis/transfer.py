"""Gains in classification beside those in segmentation and detection, from their records: `make figures`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

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
BASELINES = ("lsa", "conv")  # of the micro Swin, of the micro ResNet
CLASSIFIED = "classification"
DRAWN, TRAINED = "random weights", "weights of classification"


class Task(NamedTuple):
    """A task with a record of its own, and the figure that it is compared by."""

    metric: str
    words: str


TASKS = {"segmentation": Task("test_miou", "mIoU"), "detection": Task("test_box_ap", "box AP")}


def main(output: Path = EXPERIMENTS) -> None:
    """Write figures/transfer and tables/transfer of both records into `output`."""
    for name, task in TASKS.items():
        folder = EXPERIMENTS / name
        if not (folder / "results.csv").exists():
            continue
        gains = differences(folder, task)
        for part in ("figures", "tables"):
            (output / name / part).mkdir(parents=True, exist_ok=True)
        paths = figures.save(
            draw(gains, name, task), output / name / "figures" / "transfer", formats=("svg",)
        )
        paths += tabulate(gains, task).save(output / name / "tables")
        print(f"transfer, {name}: {len(paths)} files")


def differences(folder: Path, task: Task) -> dict[str, pd.DataFrame]:
    """Return differences from the host's own operator in points, by task and beginning: operators × seeds."""
    classified = pd.read_csv(folder / "classification.csv")
    runs = pd.read_csv(folder / "results.csv", keep_default_na=False, na_values=[""])
    from_weights = runs["task.init"].str.startswith("study:")
    return {
        CLASSIFIED: _gains(classified, "test_top1"),
        DRAWN: _gains(runs[~from_weights], task.metric),
        TRAINED: _gains(runs[from_weights], task.metric),
    }


def _gains(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    found = []
    for _, of_host in runs.groupby("host", sort=False):
        table = of_host.pivot(index="op", columns="seed", values=metric)
        baseline = next(name for name in BASELINES if name in table.index)
        others = [name for name in dict.fromkeys(of_host["op"]) if name != baseline]
        found.append((table - table.loc[baseline]).loc[others])
    return pd.concat(found)


def correlation(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    """Return Pearson's correlation of the operators' mean differences, and Fisher's 95 % interval."""
    r = float(np.corrcoef(one.mean(axis=1), other.mean(axis=1))[0, 1])
    half = 1.959964 / math.sqrt(len(one) - 3) if len(one) > 3 else math.inf
    return r, (math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))


def tabulate(gains: dict[str, pd.DataFrame], task: Task) -> Table:
    """A row for each operator: what it changes in classification and in the other task."""
    whole = {
        name: {op: statistics.t_interval(row.to_numpy()) for op, row in table.iterrows()}
        for name, table in gains.items()
    }
    digits = formats.decimals(interval for column in whole.values() for interval in column.values())
    titles = {
        CLASSIFIED: "Top-1 (pp)",
        DRAWN: f"{task.words} (pp), {DRAWN}",
        TRAINED: f"{task.words} (pp), {TRAINED}",
    }
    rows = [
        {
            "Operator": words(str(op)),
            **{
                titles[name]: difference(float(table.loc[op].mean()), whole[name][op], digits)
                for name, table in gains.items()
            },
        }
        for op in gains[CLASSIFIED].index
    ]
    said = [
        f"{name}: r = {r:.2f} [{low:.2f}, {high:.2f}]"
        for name in (DRAWN, TRAINED)
        for r, (low, high) in [correlation(gains[CLASSIFIED], gains[name])]
    ]
    count, seeds = gains[CLASSIFIED].shape
    note = (
        f"Differences from {_baselines(gains)}, paired by seed, n = {seeds}, with 95 % Student's t intervals."
        f" Correlation of the {count} operators' means with those of classification, and Fisher's 95 % "
        f"interval: {'; '.join(said)}."
    )
    return Table("transfer", "Gains in two tasks", rows, note)


def _baselines(gains: dict[str, pd.DataFrame]) -> str:
    return "lsa" if "lesa" not in gains[CLASSIFIED].index else "lsa (LESA: from conv)"


@rc_context(RC)
def draw(gains: dict[str, pd.DataFrame], name: str, task: Task) -> Figure:
    """One mark per operator and beginning: full from random weights, hollow from those of classification."""
    figure, axes = blank(3.8)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    across = gains[CLASSIFIED]
    for beginning, full in ((DRAWN, True), (TRAINED, False)):
        for number, (op, row) in enumerate(gains[beginning].iterrows()):
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
    baselines = _baselines(gains)
    axes.set_xlabel(f"classification: top-1, difference from {baselines}, pp")
    axes.set_ylabel(f"{name}: {task.words}, difference, pp")
    axes.set_title(f"full: {DRAWN}; hollow: {TRAINED}; lines: 95 % intervals", fontsize=8, loc="left")
    fit(figure, axes)
    return figure


if __name__ == "__main__":
    main()
