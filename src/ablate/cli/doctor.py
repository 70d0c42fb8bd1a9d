"""`ablate doctor`: what is available on this machine and, if not, why."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ablate.cli.parsing import add_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(verbs, doctor, "what is available here and, if not, why", "ablate doctor")
    sub.add_argument("--data-root", type=Path, help="folder of data sets (infra.data_root)")
    sub.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 where PyTorch computes what a compiled kernel should, on the CPU or on a card",
    )


def doctor(arguments: argparse.Namespace) -> None:
    """Print what is available here; exit with 1 if a kernel fell back to PyTorch and `--strict` is given."""
    from ablate.bench.doctor import show

    if not show(arguments.data_root) and arguments.strict:
        sys.exit(1)
