"""`ablate check-op`: the checks that every operator of the zoo passes, for one of your own."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ablate.cli.parsing import add_verb, positive

if TYPE_CHECKING:
    from rich.console import Console

    from ablate.testing.run import Result

DIM, DIM_OF_ALL = 16, 32  # channels
STYLES = {"ok": "green", "failed": "red", "skipped": "yellow"}


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(
        verbs,
        check_op,
        "the checks that every operator of the zoo passes: shapes, gradients, autocast, compile, export, …",
        "ablate check-op my_operator.py --dim 32",
    )
    sub.add_argument(
        "operator", metavar="NAME|FILE", nargs="?", help="an operator, or a Python file that registers some"
    )
    sub.add_argument("--all", action="store_true", help="every operator that is registered, a line each")
    sub.add_argument(
        "--dim",
        type=positive,
        help=f"channels (default: {DIM}, of all operators {DIM_OF_ALL}, for the one of 32 heads)",
    )
    sub.add_argument("--heads", type=positive, default=2, help="heads of the host (default: %(default)s)")
    sub.add_argument(
        "--resolution",
        type=positive,
        nargs=2,
        default=(14, 14),
        metavar=("HEIGHT", "WIDTH"),
        help="of the map (default: 14 14)",
    )
    sub.add_argument(
        "--check", action="append", default=[], metavar="CHECK", help="this one; may be repeated"
    )


def check_op(arguments: argparse.Namespace) -> None:
    """Print a table of the checks; exit with 1 if one fails.

    Raises:
        UserError: neither an operator nor `--all`, or both.
    """
    from rich.console import Console

    from ablate import ops
    from ablate.errors import UserError

    path, console = arguments.operator, Console(highlight=False)
    if arguments.all == (path is not None):
        raise UserError(
            "`ablate check-op` needs an operator, a file, or --all", "e.g. ablate check-op my_operator.py"
        )
    if arguments.all:
        failed = _summarize(ops.names(), arguments, console)
    else:
        names = ops.registry.load_file(path) if path.endswith(".py") else [path]
        failed = sum(_show(name, arguments, console) for name in names)
    if failed:
        console.print(f"{failed} check{'s' * (failed != 1)} failed")
        sys.exit(1)


def _results(name: str, arguments: argparse.Namespace, dim: int) -> Iterator[Result]:
    from ablate import testing

    subject = testing.Subject(name, {}, arguments.dim or dim, arguments.heads, tuple(arguments.resolution))
    return testing.results(subject, arguments.check)


def _show(name: str, arguments: argparse.Namespace, console: Console) -> int:
    """Print a line for every check of an operator; return how many fail."""
    from rich.markup import escape
    from rich.table import Table

    from ablate.testing.run import FAILED

    failed = 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (name, "stride", "", ""):
        table.add_column(title, overflow="fold")
    with console.status(name) as status:
        for one in _results(name, arguments, DIM):
            status.update(f"{name}: {one.check}")
            style = STYLES[one.outcome]
            table.add_row(one.check, str(one.stride), f"[{style}]{one.outcome}[/]", escape(one.detail))
            failed += one.outcome == FAILED
    console.print(table)
    return failed


def _summarize(names: Sequence[str], arguments: argparse.Namespace, console: Console) -> int:
    """Print a line for every operator: how many checks it passes, fails and skips; return how many fail."""
    from rich.table import Table

    from ablate.testing.run import FAILED

    failed = 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operator")
    for outcome in STYLES:
        table.add_column(outcome, justify="right")
    table.add_column("", overflow="fold")
    with console.status("") as status:
        for name in names:
            status.update(name)
            found = list(_results(name, arguments, DIM_OF_ALL))
            counts = Counter(one.outcome for one in found)
            broken = dict.fromkeys(one.check for one in found if one.outcome == FAILED)
            table.add_row(name, *(str(counts[outcome]) for outcome in STYLES), ", ".join(broken))
            failed += counts[FAILED]
    console.print(table)
    return failed
