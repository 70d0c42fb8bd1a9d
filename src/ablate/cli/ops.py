"""`ablate ops`: the operator zoo, or one operator's page."""

from __future__ import annotations

import argparse

from ablate.cli.parsing import add_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(
        verbs,
        ops,
        "the operator zoo: paper, axes, parameters, multiply-accumulates; with NAME, one operator's page",
        "ablate ops elsa",
    )
    sub.add_argument("name", metavar="NAME", nargs="?", help="an operator: equation, settings, quirks")
    sub.add_argument("--markdown", action="store_true", help="the table as Markdown")


def ops(arguments: argparse.Namespace) -> None:
    """Print the zoo table, or one operator's page."""
    from ablate.ops import page, table

    if arguments.name is not None:
        print(page.page(arguments.name))
    elif arguments.markdown:
        print(table.markdown())
    else:
        table.show()
