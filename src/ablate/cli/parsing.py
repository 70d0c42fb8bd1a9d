"""Parts of a parser that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ablate import commands

TO_EVALUATE = "to evaluate, of the data too (data=imagenet data.root=DIR); of a run, its task.evaluation"


def add_verb(
    verbs: argparse._SubParsersAction, call: Callable, help_text: str, example: str
) -> argparse.ArgumentParser:
    """Add a verb that has the name of its function, with hyphens for underscores; `import_` is `import`."""
    sub: argparse.ArgumentParser = verbs.add_parser(
        call.__name__.strip("_").replace("_", "-"),
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(verb=call)
    return sub


def add_study_verb(
    verbs: argparse._SubParsersAction,
    call: Callable,
    help_text: str,
    example: str,
    studies: str | None = None,
) -> argparse.ArgumentParser:
    """Add a verb of one study, or of as many as `studies` says in argparse's notation."""
    sub = add_verb(verbs, call, help_text, example)
    sub.add_argument("study", metavar="STUDY", nargs=studies, help="name of the study, e.g. quick")
    add_runs_dir(sub)
    return sub


def add_runs_dir(sub: argparse.ArgumentParser) -> None:
    """Add --runs-dir."""
    sub.add_argument(
        "--runs-dir",
        type=Path,
        default=commands.USUAL,
        help="folder of the runs (default: runs, here or in the nearest parent folder that has one)",
    )


def add_output(sub: argparse.ArgumentParser) -> None:
    """Add --output."""
    sub.add_argument("-o", "--output", type=Path, help="where to write (default: in the study's folder)")


def add_model(sub: argparse.ArgumentParser, required: bool = True, others: str = TO_EVALUATE) -> None:
    """Add the options that choose a network and change its settings; `others` says which else there are."""
    sub.add_argument(
        "--model", required=required, help="a network of `ablate bench models`, or any of timm's"
    )
    sub.add_argument("--img-size", type=int, help="height and width of its images (default: its own)")
    sub.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help=f"settings of its operator (op.channel.ghost_lambda=1); {others}",
    )


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return int(text)


def whole_numbers(text: str) -> list[int]:
    """Read whole numbers and ranges: `0,1,5-7` is 0, 1, 5, 6, 7."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and (not last.isdecimal() or int(last) < int(first))):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,1,2 or 0-4")
        found += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(found))
