"""`ablate ops` and `ablate doctor`: what there is, and what is available here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ablate.cli.parsing import add_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Both verbs."""
    sub = add_verb(
        verbs,
        ops,
        "the operator zoo: paper, axes, parameters, multiply-accumulates; with NAME, one operator's page",
        "ablate ops elsa",
    )
    sub.add_argument("name", metavar="NAME", nargs="?", help="an operator: equation, settings, quirks")
    sub.add_argument("--markdown", action="store_true", help="the table as Markdown")
    sub = add_verb(verbs, doctor, "what is available here and, if not, why", "ablate doctor")
    sub.add_argument("--data-root", type=Path, help="folder of data sets (infra.data_root)")
    sub.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 where PyTorch computes what a compiled kernel should, on the CPU or on a card",
    )


def ops(arguments: argparse.Namespace) -> None:
    """The zoo table, or one operator's page."""
    from ablate.ops import page, table

    if arguments.name is not None:
        print(page.page(arguments.name))
    elif arguments.markdown:
        print(table.markdown())
    else:
        table.show()


def doctor(arguments: argparse.Namespace) -> None:
    """Print what is available here; exit with 1 if a kernel fell back to PyTorch and `--strict` is given."""
    from ablate.bench.doctor import show

    if not show(arguments.data_root) and arguments.strict:
        sys.exit(1)
