"""`ablate bench ops`: speed of the operators on one map."""

from __future__ import annotations

import argparse

from ablate.cli.bench.options import add_dtype, add_kind, add_measuring, measuring, present


def add(kinds: argparse._SubParsersAction) -> None:
    """Add the kind."""
    ops = add_kind(
        kinds,
        bench_ops,
        "operators of the zoo on one map, by compiled kernels and by plain PyTorch, beside lsa and dwconv",
        "ablate bench ops elsa na --quick",
        "ablate bench ops --stage 1 --keep",
    )
    ops.add_argument("names", metavar="NAME", nargs="*", help="operators (default: all)")
    add_measuring(ops, batch=8, repetitions=10)
    add_dtype(ops)
    ops.add_argument(
        "--stage",
        type=int,
        choices=(1, 2, 3, 4),
        default=2,
        help="of Swin-T, whose map to take (default: %(default)s, 28×28 with 192 channels)",
    )


def bench_ops(arguments: argparse.Namespace) -> None:
    """Speed of the operators on one map."""
    from ablate.bench import ops, settings

    stage = settings.STAGES[arguments.stage]
    present(arguments, ops.run(arguments.names, stage, measuring(arguments, batch=8, repetitions=10)))
