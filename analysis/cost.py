"""Accuracy against cost over all studies in the micro Swin, from their records: `make figures`."""

from __future__ import annotations

from pathlib import Path

from ablate.results import figures, record, tables

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"
STUDIES = ("operators", "lsa_to_elsa", "channel_setting", "spatial_processing")


def main(output: Path = EXPERIMENTS) -> None:
    """Write experiments/cost/figures and tables into `output`."""
    folders = [EXPERIMENTS / name for name in STUDIES]
    findings = record.pooled(folders, ROOT / "conf", "swin_micro")
    for part in ("figures", "tables"):
        (output / "cost" / part).mkdir(parents=True, exist_ok=True)
    drawn = figures.accuracy_against_macs(findings)
    paths = figures.save(drawn, output / "cost" / "figures" / "accuracy_macs", formats=("svg",))
    paths += tables.front(findings).save(output / "cost" / "tables")
    print(f"cost: {len(paths)} files")


if __name__ == "__main__":
    main()
