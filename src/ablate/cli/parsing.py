"""What the verbs' parsers share."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_verb(
    verbs: argparse._SubParsersAction, call: Callable, help_text: str, example: str
) -> argparse.ArgumentParser:
    """A verb, named after its function."""
    sub: argparse.ArgumentParser = verbs.add_parser(
        call.__name__,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(verb=call)
    return sub


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return int(text)
