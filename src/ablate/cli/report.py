"""`ablate report`: page, figures and tables of a study, or of several."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ablate.cli.parsing import add_output, add_study_verb, whole_numbers

if TYPE_CHECKING:
    from ablate.results.tables import Table

BESIDE = "figures, tables (Markdown, LaTeX, CSV) and runs are beside it"


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_study_verb(
        verbs,
        report,
        "page, figures and tables of a study; of several studies, one page that compares them",
        "ablate report quick -o quick_report\n"
        "  ablate report quick --baseline op=dwconv --drop op=elsa --seeds 0-2\n"
        "  ablate report quick quick_gpu --metric test_loss",
        studies="+",
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
    sub.add_argument(
        "--gained",
        action="append",
        default=[],
        metavar="CONDITION",
        help="show the test images that it gained and lost, too; may be repeated",
    )
    _add_selection(sub)


def _add_selection(sub: argparse.ArgumentParser) -> None:
    """Add the options that select a part of a study; the page says what was selected."""
    group = sub.add_argument_group("selection", "a level is FACTOR=LEVEL, or the name of a condition")
    levels: dict[str, Any] = {"action": "append", "default": [], "metavar": "LEVEL"}
    group.add_argument("--baseline", **levels, help="compare with this condition; repeat for several factors")
    group.add_argument("--metric", help="compare by this figure, e.g. test_loss (default: study.metric)")
    group.add_argument(
        "--only", **levels, help="only runs with this level; repeated for a factor: any of them"
    )
    group.add_argument("--drop", **levels, help="without runs of this level; may be repeated")
    group.add_argument(
        "--seeds", type=whole_numbers, default=[], metavar="SEEDS", help="only these, e.g. 0,1,2 or 0-4"
    )


def report(arguments: argparse.Namespace) -> None:
    """Write page, figures and tables; print a short table and the path of the page."""
    from rich.console import Console

    from ablate import plugins
    from ablate.results import tables
    from ablate.results.report import Options, examined, folder_of, write
    from ablate.results.selection import Selection
    from ablate.studies import pictures

    selection = Selection(
        arguments.baseline, arguments.metric, arguments.seeds, arguments.only, arguments.drop
    )
    options = Options(
        paired=not arguments.unpaired,
        target=arguments.target,
        margin=arguments.margin,
        mixed=arguments.mixed_code,
        selection=selection,
        gained=arguments.gained,
    )
    runs_dir, studies = arguments.runs_dir, list(dict.fromkeys(arguments.study))
    evidence = examined(runs_dir, studies, options)
    folder = arguments.output or folder_of(runs_dir, studies)
    page = write(evidence, runs_dir, folder, pictures.of_run, plugins.lines_of_broken())[0]
    console = Console(highlight=False)
    short = tables.short_table(evidence.findings)
    console.print(_drawn(short))
    console.print(short.note, markup=False)
    if selection:
        console.print(f"A selection of the study: {selection}.", markup=False)
    console.print(f"{page}\n  {BESIDE}", markup=False, soft_wrap=True)


def _drawn(table: Table) -> Any:
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for title, text in zip(table.columns, table.text_columns(), strict=True):
        grid.add_column(title, justify="left" if text else "right", overflow="fold")
    for row in table.rows:
        grid.add_row(*(escape(cell.text) for cell in row.values()))
    return grid
