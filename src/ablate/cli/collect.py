"""`ablate collect`: one CSV of the runs of a study or several."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablate.cli.parsing import add_output, add_study_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_study_verb(
        verbs,
        collect,
        "one CSV of the runs of a study or several, failed ones too",
        "ablate collect quick -o quick.csv --curves curves.csv",
        studies="+",
    )
    add_output(sub)
    sub.add_argument(
        "--mixed-code",
        action="store_true",
        help="put runs of different code into one file; its column `code` distinguishes them",
    )
    sub.add_argument("--curves", type=Path, metavar="CSV", help="also one row per epoch, into this file")


def collect(arguments: argparse.Namespace) -> None:
    """Write one CSV of the runs of a study, or of several that belong together, and print its path."""
    import pandas as pd

    from ablate.results.collect import collect, collect_metrics, refuse_mixed_code, write_csv
    from ablate.store.manifest import study_dir

    frames = [collect(arguments.runs_dir, study) for study in arguments.study]
    frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    if not arguments.mixed_code:
        refuse_mixed_code(arguments.runs_dir, frame, arguments.study)
    path = arguments.output or study_dir(arguments.runs_dir, arguments.study[0]) / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(frame, path)
    if arguments.curves:
        arguments.curves.parent.mkdir(parents=True, exist_ok=True)
        write_csv(collect_metrics(arguments.runs_dir, frame), arguments.curves)
    states = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    print(f"{len(frame)} runs ({states})")
    print(path)
