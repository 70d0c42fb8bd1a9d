"""Figures and tables of every study under experiments/, regenerated from their records: `make figures`."""

from __future__ import annotations

from pathlib import Path

from ablate.results import record

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"


def main(output: Path = EXPERIMENTS) -> None:
    """Write figures/ and tables/ of each record into its folder under `output`."""
    for results in sorted(EXPERIMENTS.glob("*/results.csv")):
        name = results.parent.name
        paths = record.regenerate(results.parent, ROOT / "conf", output / name)
        print(f"{name}: {len(paths)} files")


if __name__ == "__main__":
    main()
