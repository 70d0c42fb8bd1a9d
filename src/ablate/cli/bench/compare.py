"""`ablate bench compare`: two acceptance runs side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add(kinds: argparse._SubParsersAction) -> None:
    """Add the kind."""
    compare = kinds.add_parser(
        "compare",
        help="two acceptance runs side by side; exit code 1 where the second is worse",
        description="Figures of two acceptance runs side by side. The exit code is 1 where anything takes "
        "more than the threshold allows, or does not pass any more.",
        epilog="example:\n  ablate bench compare build/before build/after --threshold 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "first", type=Path, metavar="A", help="folder of an acceptance run, or its JSON file"
    )
    compare.add_argument("second", type=Path, metavar="B", help="the same")
    compare.add_argument("--threshold", type=_percent, default=5.0, help="percent (default: %(default)g)")
    compare.set_defaults(verb=bench_compare)


def bench_compare(arguments: argparse.Namespace) -> None:
    """Compare two records; exit code 1 where the second is worse."""
    from ablate.bench.acceptance import compare

    found = compare.compare(arguments.first, arguments.second)
    compare.show(found, arguments.threshold / 100)
    if found.worse(arguments.threshold / 100):
        sys.exit(1)


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of percent, 0 or more")
    return value
