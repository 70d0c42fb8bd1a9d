"""`ablate bench kernels`: speed of the kernels, or what their Triton forms need of a GPU."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablate.cli.bench.options import MEASURING, add_dtype, add_kind, add_measuring, measuring, present, refuse
from ablate.errors import UserError


def add(kinds: argparse._SubParsersAction) -> None:
    """Add the kind."""
    kernels = add_kind(
        kinds,
        bench_kernels,
        "kernels beside the form that authors write (F.unfold) and the library's nearest, at Swin-T's shapes",
        "ablate bench kernels attention --stages 3,4",
        "ablate bench kernels --threads 1 --keep",
        "ablate bench kernels --aot aggregate_taps",
        "ablate bench kernels --aot --golden",
    )
    kernels.add_argument("names", metavar="NAME", nargs="*", help="kernels (default: all)")
    add_measuring(kernels, batch=8, repetitions=10)
    add_dtype(kernels)
    kernels.add_argument("--stages", metavar="1,2,…", help="of Swin-T, whose shapes to take (default: all)")
    kernels.add_argument(
        "--no-unfold",
        action="store_true",
        help="compare with the unfold form on 2 images, and do not time it",
    )
    kernels.add_argument(
        "--aot",
        action="store_true",
        help="instead, compile the Triton kernels for A100, H100 and B200: registers, spills, shared memory",
    )
    kernels.add_argument(
        "--golden",
        type=Path,
        nargs="?",
        const=Path("tests/kernels/aot"),
        metavar="FOLDER",
        help="with --aot: compile all and write this Triton's file, which the tests compare with, into this "
        "folder (default: %(const)s); `make aot` does so for every Triton that is supported",
    )


def bench_kernels(arguments: argparse.Namespace) -> None:
    """Speed of the kernels, or what their Triton forms need of a GPU."""
    if arguments.aot:
        _bench_aot(arguments)
        return
    if arguments.golden is not None:
        raise UserError("--golden is of the compiled kernels", "write ablate bench kernels --aot --golden")
    from ablate.bench import kernels, settings

    stages = settings.stages(arguments.stages)
    asked = measuring(arguments, batch=8, repetitions=10)
    present(arguments, kernels.run(arguments.names, stages, asked, unfolds=not arguments.no_unfold))


def _bench_aot(arguments: argparse.Namespace) -> None:
    refuse(arguments, [*MEASURING, "dtype", "stages", "no_unfold", "keep"], "leave out --aot")
    from ablate.bench import aot, resources

    if arguments.golden is not None:
        resources.regenerate(arguments.golden / aot.golden_file().name)
    elif arguments.json:
        resources.dump(resources.measure(arguments.names))
    else:
        resources.show(resources.measure(arguments.names))
