"""Figures and table of experiments/quick, regenerated from its results.csv: `make figures`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ablate.results import figures, tables
from ablate.results.comparisons import Findings, analyse
from ablate.store.files import write_text
from ablate.store.manifest import Manifest, PlannedRun

RECORD = Path(__file__).parent.parent / "experiments" / "quick"


def findings() -> Findings:
    """The comparisons of every operator with windowed attention, by seed."""
    runs = pd.read_csv(RECORD / "results.csv", dtype={"signature": str, "pair_key": str})
    columns = runs[["signature", "pair_key", "seed", "condition"]].itertuples(index=False)
    planned = [PlannedRun(signature, pair, seed, {"op": op}) for signature, pair, seed, op in columns]
    return analyse(Manifest("quick", baseline={"op": "lsa"}, factors=["op"], runs=planned), runs)


def main(output: Path = RECORD) -> None:
    """Write figures/ and table.md into `output`."""
    found = findings()
    (output / "figures").mkdir(parents=True, exist_ok=True)
    figures.save(figures.forest(found), output / "figures" / "differences")
    figures.save(figures.accuracy_against_macs(found), output / "figures" / "accuracy_macs")
    write_text(output / "table.md", tables.to_markdown(tables.study_table(found), tables.footnote(found)))


if __name__ == "__main__":
    main()
