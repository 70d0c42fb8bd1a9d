"""`ablate bench`: speed and costs of kernels, operators and networks, one file per kind."""

from __future__ import annotations

import argparse

from ablate.cli.bench import acceptance, compare, kernels, models, ops


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb and its kinds."""
    bench = verbs.add_parser(
        "bench",
        help="how fast kernels, operators and networks are, and what networks cost",
        epilog="examples:\n  ablate bench kernels --quick\n  ablate bench ops elsa\n  ablate bench models\n"
        "  ablate bench acceptance --out build/h100",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = bench.add_subparsers(title="kinds", metavar="KIND", required=True)
    for kind in (kernels, ops, models, acceptance, compare):
        kind.add(kinds)
