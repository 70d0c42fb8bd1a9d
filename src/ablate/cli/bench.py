"""`ablate bench`: kernels, operators and networks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.cli import acceptance
from ablate.cli.parsing import positive
from ablate.errors import UserError

if TYPE_CHECKING:
    from ablate.bench.report import Report
    from ablate.bench.settings import Settings

MEASURING = ("device", "threads", "batch", "repetitions", "quick", "strict")  # options of all benchmarks


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its kinds."""
    bench = verbs.add_parser(
        "bench",
        help="how fast kernels, operators and networks are, and what networks cost",
        epilog="examples:\n  ablate bench kernels --quick\n  ablate bench ops elsa\n  ablate bench models\n"
        "  ablate bench acceptance --out build/h100",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = bench.add_subparsers(title="kinds", metavar="KIND", required=True)
    _add_bench_kernels(kinds)
    _add_bench_ops(kinds)
    _add_bench_models(kinds)
    acceptance.add(kinds)


def _add_bench_kernels(kinds: argparse._SubParsersAction) -> None:
    kernels = _kind(
        kinds,
        bench_kernels,
        "kernels beside the form that authors write (F.unfold) and the library's nearest, at Swin-T's shapes",
        "ablate bench kernels attention --stages 3,4",
        "ablate bench kernels --threads 1 --keep",
        "ablate bench kernels --aot aggregate_taps",
        "ablate bench kernels --aot --golden",
    )
    kernels.add_argument("names", metavar="NAME", nargs="*", help="kernels (default: all)")
    _add_measuring(kernels, batch=8, repetitions=10)
    _add_dtype(kernels)
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


def _add_bench_ops(kinds: argparse._SubParsersAction) -> None:
    ops = _kind(
        kinds,
        bench_ops,
        "operators of the zoo on one map, by compiled kernels and by plain PyTorch, beside lsa and dwconv",
        "ablate bench ops elsa na --quick",
        "ablate bench ops --stage 1 --keep",
    )
    ops.add_argument("names", metavar="NAME", nargs="*", help="operators (default: all)")
    _add_measuring(ops, batch=8, repetitions=10)
    _add_dtype(ops)
    ops.add_argument(
        "--stage",
        type=int,
        choices=(1, 2, 3, 4),
        default=2,
        help="of Swin-T, whose map to take (default: %(default)s, 28×28 with 192 channels)",
    )


def _add_bench_models(kinds: argparse._SubParsersAction) -> None:
    models = _kind(
        kinds,
        bench_models,
        "parameters and multiply-accumulates of every named network, beside its authors' count; with --time, "
        "training steps beside timm's Swin-T",
        "ablate bench models elsa_swin_tiny rednet50",
        "ablate bench models --golden",
        "ablate bench models --time elsa_swin_tiny involution --quick",
    )
    models.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="networks (default: all); with --time elsa_swin_tiny, na_swin_tiny or an operator for Swin-T",
    )
    models.add_argument("--time", action="store_true", help="time forward and backward at 224×224 pixels")
    _add_measuring(models, batch=4, repetitions=5)
    models.add_argument(
        "--golden",
        type=Path,
        nargs="?",
        const=Path("tests/golden/models.json"),
        metavar="FILE",
        help="count all and write the golden file that the tests compare with (default: %(const)s)",
    )


def _add_measuring(sub: argparse.ArgumentParser, batch: int, repetitions: int) -> None:
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


def _add_dtype(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32")


def _kind(
    kinds: argparse._SubParsersAction, call: Callable, help_text: str, *examples: str
) -> argparse.ArgumentParser:
    """A kind of benchmark, named after its function `bench_<kind>`."""
    sub: argparse.ArgumentParser = kinds.add_parser(
        call.__name__.removeprefix("bench_"),
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog="\n  ".join(["examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(verb=call)
    return sub


def bench_kernels(arguments: argparse.Namespace) -> None:
    """Speed of the kernels, or what their Triton forms need of a GPU."""
    if arguments.aot:
        _bench_aot(arguments)
        return
    if arguments.golden is not None:
        raise UserError("--golden is of the compiled kernels", "write ablate bench kernels --aot --golden")
    from ablate.bench import kernels, settings

    stages = settings.stages(arguments.stages)
    asked = _measuring(arguments, batch=8, repetitions=10)
    _present(arguments, kernels.run(arguments.names, stages, asked, unfolds=not arguments.no_unfold))


def _bench_aot(arguments: argparse.Namespace) -> None:
    _refuse(arguments, [*MEASURING, "dtype", "stages", "no_unfold", "keep"], "leave out --aot")
    from ablate.bench import aot, resources

    if arguments.golden is not None:
        resources.regenerate(arguments.golden / aot.golden_file().name)
    elif arguments.json:
        resources.dump(resources.measure(arguments.names))
    else:
        resources.show(resources.measure(arguments.names))


def bench_ops(arguments: argparse.Namespace) -> None:
    """Speed of the operators on one map."""
    from ablate.bench import ops, settings

    stage = settings.STAGES[arguments.stage]
    _present(arguments, ops.run(arguments.names, stage, _measuring(arguments, batch=8, repetitions=10)))


def bench_models(arguments: argparse.Namespace) -> None:
    """Parameters and multiply-accumulates of the named networks, or the time of their training steps."""
    if arguments.time:
        from ablate.bench import networks

        _present(arguments, networks.run(arguments.names, _measuring(arguments, batch=4, repetitions=5)))
        return
    _refuse(arguments, [*MEASURING, "json", "keep"], "add --time")
    from ablate.bench import models

    if arguments.golden is not None:
        models.regenerate(arguments.golden)
        print(arguments.golden)
    else:
        models.show(arguments.names)


def _measuring(arguments: argparse.Namespace, batch: int, repetitions: int) -> Settings:
    """How to measure, from what was given and else from these defaults."""
    from ablate.bench.settings import QUICK, prepare

    defaults = QUICK if arguments.quick else {"batch": batch, "repetitions": repetitions}
    return prepare(
        arguments.device or "cpu",
        arguments.threads,
        arguments.batch or defaults["batch"],
        arguments.repetitions or defaults["repetitions"],
        getattr(arguments, "dtype", None) or "float32",
    )


def _present(arguments: argparse.Namespace, found: Report) -> None:
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


def _refuse(arguments: argparse.Namespace, options: Sequence[str], way_out: str) -> None:
    given = [f"--{name.replace('_', '-')}" for name in options if getattr(arguments, name)]
    if given:
        raise UserError(f"{', '.join(given)}: only where speed is measured", way_out)
