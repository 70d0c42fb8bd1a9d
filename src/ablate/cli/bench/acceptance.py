"""`ablate bench acceptance`: check and measure the CUDA kernels on one card."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ONLY_MODELS = "ablate bench acceptance --only kernels,models"


def add(kinds: argparse._SubParsersAction) -> None:
    """Add the kind."""
    acceptance = kinds.add_parser(
        "acceptance",
        help="check and measure the CUDA kernels on one card: eight steps, at most eight minutes, resumable",
        description="Self-check, tests, kernels, operators, networks, exact resume and machine code on one "
        "card. Each step has a limit. What it measures is written at once; the same command resumes where an "
        "earlier one was cut off. Without a card the steps run on the CPU at toy size.",
        epilog=f"examples:\n  ablate bench acceptance --out build/h100\n  {ONLY_MODELS}\n"
        "  ablate bench acceptance --device cpu --only selfcheck",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    acceptance.add_argument(
        "--out",
        type=Path,
        default=Path("build/acceptance"),
        help="folder of the record (default: %(default)s)",
    )
    acceptance.add_argument("--only", metavar="STEP,…", help="steps to run (default: all)")
    acceptance.add_argument("--device", choices=("cpu", "cuda"), help="default: the card, if there is one")
    acceptance.add_argument("--toy", action="store_true", help="at toy size on a card too; on a CPU always")
    acceptance.add_argument("--again", action="store_true", help="run finished steps again")
    acceptance.add_argument(
        "--limit",
        type=_factor,
        default=1.0,
        metavar="FACTOR",
        help="multiply the limits of the steps, for a longer loan of the card (default: %(default)g)",
    )
    acceptance.add_argument("--list", action="store_true", help="list the steps with their limits, and end")
    acceptance.set_defaults(verb=bench_acceptance)


def bench_acceptance(arguments: argparse.Namespace) -> None:
    """Run the steps; exit code 1 where one did not end as it should, or a check did not pass."""
    from ablate.bench.acceptance import runner, steps
    from ablate.execution.interruption import termination_as_interrupt

    chosen = steps.chosen(arguments.only)
    if arguments.list:
        for step in chosen:
            print(f"{step.name:10} {steps.limit(step, False, arguments.limit):4} s  {step.what}")
        print(f"{'in all':10} {steps.total(chosen, arguments.limit):4} s at most")
        return
    device = runner.device(arguments.device)
    toy = arguments.toy or device.type == "cpu"
    if device.type == "cpu":
        print("no card is used: the steps run on the CPU at toy size, and their times mean nothing")
    setting = steps.Setting(device, toy, arguments.out, arguments.limit)
    with termination_as_interrupt():
        record = runner.run(chosen, setting, again=arguments.again)
    print(arguments.out / runner.PAGE)
    if problems := runner.failures(record):
        print(
            "\n".join(["", "not as it should be:", *(f"  {problem}" for problem in problems)]),
            file=sys.stderr,
        )
        sys.exit(1)


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor, a number above 0")
    return value
