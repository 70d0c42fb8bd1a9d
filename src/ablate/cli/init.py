"""`ablate init`: a small plug-in that works, to begin with."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablate.cli.parsing import add_verb

OPERATOR = "operator"


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(
        verbs,
        init,
        "a small package of your own that works: an operator, host, data set or study, with its test",
        "ablate init operator my_pooling",
    )
    sub.add_argument(
        "kind",
        metavar="KIND",
        nargs="?",
        default=OPERATOR,
        help="operator (the default), host, data or study",
    )
    sub.add_argument("name", metavar="PACKAGE", help="its name, and that of what it registers")
    sub.add_argument("--folder", type=Path, default=Path(), help="to write it into (default: this one)")


def init(arguments: argparse.Namespace) -> None:
    """Write the package; print its files and what to do next.

    Raises:
        UserError: a kind without a name.
    """
    import shlex

    from ablate import scaffold
    from ablate.errors import UserError

    if arguments.name in scaffold.TRIES:
        raise UserError(f"a name is missing after {arguments.name!r}", "ablate init operator my_pooling")

    written = scaffold.write(arguments.kind, arguments.name, arguments.folder)
    for path in written:
        print(path)
    place = shlex.quote(str(arguments.folder / arguments.name))
    tried = scaffold.TRIES[arguments.kind].replace(scaffold.NAME, arguments.name)
    print(f"next: cd {place} && pip install --editable . && pytest -q && {tried}")
