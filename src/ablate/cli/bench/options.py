"""Options that all benchmarks share, and how their results are presented."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.cli.parsing import positive
from ablate.errors import UserError

if TYPE_CHECKING:
    from ablate.bench.report import Report
    from ablate.bench.settings import Settings

MEASURING = ("device", "threads", "batch", "repetitions", "quick", "strict")  # options of all benchmarks


def add_kind(
    kinds: argparse._SubParsersAction, call: Callable, help_text: str, *examples: str
) -> argparse.ArgumentParser:
    """Add a kind of benchmark, named after its function `bench_<kind>`."""
    sub: argparse.ArgumentParser = kinds.add_parser(
        call.__name__.removeprefix("bench_"),
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog="\n  ".join(["examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(verb=call)
    return sub


def add_measuring(sub: argparse.ArgumentParser, batch: int, repetitions: int) -> None:
    """Add the options of measuring, with the defaults of a kind."""
    sub.add_argument("--device", choices=("cpu", "cuda"), help="where to compute (default: cpu)")
    sub.add_argument("--threads", type=positive, help="of the CPU (default: PyTorch's choice)")
    sub.add_argument("--batch", type=positive, help=f"images at a time (default: {batch})")
    sub.add_argument(
        "--repetitions", type=positive, help=f"of each, in turns with the others (default: {repetitions})"
    )
    sub.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 where PyTorch computed what a compiled kernel should",
    )
    sub.add_argument("--quick", action="store_true", help="a first look: a batch of 2, 3 repetitions")
    sub.add_argument("--json", action="store_true", help="raw figures for programs: seconds, FLOPs, bytes")
    sub.add_argument(
        "--keep",
        type=Path,
        nargs="?",
        const=Path("benchmarks"),
        metavar="FOLDER",
        help="write the record too, with hardware and versions, as Markdown and JSON (default: %(const)s)",
    )


def add_dtype(sub: argparse.ArgumentParser) -> None:
    """Add --dtype."""
    sub.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32")


def measuring(arguments: argparse.Namespace, batch: int, repetitions: int) -> Settings:
    """Read how to measure from the options, with these defaults."""
    from ablate.bench.settings import QUICK, prepare

    defaults = QUICK if arguments.quick else {"batch": batch, "repetitions": repetitions}
    return prepare(
        arguments.device or "cpu",
        arguments.threads,
        arguments.batch or defaults["batch"],
        arguments.repetitions or defaults["repetitions"],
        getattr(arguments, "dtype", None) or "float32",
    )


def present(arguments: argparse.Namespace, found: Report) -> None:
    """Print the figures, and keep them if requested.

    The exit code is 1 where values disagree and, with `--strict`, where a kernel fell back.
    """
    from ablate.bench import report

    if arguments.json:
        report.dump(found)
    else:
        report.show(found)
    if arguments.keep is not None:
        for path in report.keep(found, arguments.keep):
            print(path, file=sys.stderr)
    if not found.agreed or (arguments.strict and not found.compiled):
        sys.exit(1)


def refuse(arguments: argparse.Namespace, options: Sequence[str], way_out: str) -> None:
    """Refuse options of measuring where nothing is measured.

    Raises:
        UserError: names the options that were given.
    """
    given = [f"--{name.replace('_', '-')}" for name in options if getattr(arguments, name)]
    if given:
        raise UserError(f"{', '.join(given)}: only where speed is measured", way_out)
