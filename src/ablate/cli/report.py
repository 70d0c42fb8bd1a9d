"""`ablate report`: page, figures and tables of a study."""

from __future__ import annotations

import argparse

from ablate.cli.parsing import add_output, add_study_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_study_verb(
        verbs, report, "page, figures and tables of a study", "ablate report quick -o quick_report"
    )
    add_output(sub)
    sub.add_argument(
        "--unpaired",
        action="store_true",
        help="compare runs as independent groups, where seeds are not pairs; marked so",
    )
    sub.add_argument(
        "--target",
        type=float,
        metavar="PERCENT",
        help="validation accuracy for the time to accuracy (default: the baseline's median at its end)",
    )
    sub.add_argument(
        "--margin",
        type=float,
        metavar="POINTS",
        help="largest negligible difference, instead of study.margin; marked as chosen after the runs",
    )
    sub.add_argument(
        "--mixed-code",
        action="store_true",
        help="compare runs that were computed by different code; the page lists them",
    )


def report(arguments: argparse.Namespace) -> None:
    """Write page, figures and tables of a study; print its table and the paths."""
    from ablate.results.report import report

    paths = report(
        arguments.runs_dir,
        arguments.study,
        arguments.output,
        paired=not arguments.unpaired,
        target=arguments.target,
        margin=arguments.margin,
        mixed=arguments.mixed_code,
    )
    table = next(path for path in paths if path.name == "table.md")
    print(table.read_text(encoding="utf-8"))
    for path in paths:
        print(path)
