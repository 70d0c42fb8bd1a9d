"""`ablate bench models`: costs of the named networks, or the time of their training steps."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablate.cli.bench.options import MEASURING, add_kind, add_measuring, measuring, present, refuse


def add(kinds: argparse._SubParsersAction) -> None:
    """Add the kind."""
    models = add_kind(
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
    add_measuring(models, batch=4, repetitions=5)
    models.add_argument(
        "--golden",
        type=Path,
        nargs="?",
        const=Path("tests/golden/models.json"),
        metavar="FILE",
        help="count all and write the golden file that the tests compare with (default: %(const)s)",
    )


def bench_models(arguments: argparse.Namespace) -> None:
    """Parameters and multiply-accumulates of the named networks, or the time of their training steps."""
    if arguments.time:
        from ablate.bench import networks

        present(arguments, networks.run(arguments.names, measuring(arguments, batch=4, repetitions=5)))
        return
    refuse(arguments, [*MEASURING, "json", "keep"], "add --time")
    from ablate.bench import models

    if arguments.golden is not None:
        models.regenerate(arguments.golden)
        print(arguments.golden)
    else:
        models.show(arguments.names)
