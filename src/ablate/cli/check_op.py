"""`ablate check-op`: the checks that every operator of the zoo passes, for one of your own."""

from __future__ import annotations

import argparse
import sys

from ablate.cli.parsing import add_verb, positive

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
        "operator", metavar="NAME|FILE", help="an operator, or a Python file that registers some"
    )
    sub.add_argument("--dim", type=positive, default=16, help="channels (default: %(default)s)")
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
    """Print a table of the checks; exit with 1 if one fails."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ablate import ops, testing
    from ablate.testing.run import FAILED

    console, failed = Console(highlight=False), 0
    path = arguments.operator
    for name in ops.registry.load_file(path) if path.endswith(".py") else [path]:
        subject = testing.Subject(name, {}, arguments.dim, arguments.heads, tuple(arguments.resolution))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in (name, "stride", "", ""):
            table.add_column(title, overflow="fold")
        with console.status(name) as status:
            for one in testing.results(subject, arguments.check):
                status.update(f"{name}: {one.check}")
                style = STYLES[one.outcome]
                table.add_row(one.check, str(one.stride), f"[{style}]{one.outcome}[/]", escape(one.detail))
                failed += one.outcome == FAILED
        console.print(table)
    if failed:
        console.print(f"{failed} check{'s' * (failed != 1)} failed")
        sys.exit(1)
