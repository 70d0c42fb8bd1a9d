"""The reference of the command line, from the parser itself and from the help text in conf/train.yaml."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

import yaml

from generate import ROOT, Pages
from generate.markdown import fence, table

INTRODUCTION = """# Command line

This page is generated from the parser, so that it lists every verb and every option.
`ablate VERB --help` prints the same text in a terminal. The exit code is 0 for success, 2 for a mistake that
the user can fix (the message names it), 130 after Ctrl-C, and 1 for everything else.
"""


def write(pages: Pages) -> None:
    """Write reference/cli.md."""
    os.environ["COLUMNS"] = "88"  # the width of argparse's usage lines
    from ablate.cli import _parser

    parts = [INTRODUCTION, *_verbs(_parser())]
    pages.write("reference/cli.md", "\n\n".join(parts) + "\n")


def _verbs(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for each in action.choices.values():
            if each.prog == "ablate train":
                yield _train()
            elif any(isinstance(inner, argparse._SubParsersAction) for inner in each._actions):
                yield from _verbs(each)
            else:
                yield _verb(each)


def _train() -> str:
    """`train` is parsed by Hydra: its help is in conf/train.yaml."""
    settings = yaml.safe_load((ROOT / "conf" / "train.yaml").read_text(encoding="utf-8"))
    text = settings["hydra"]["help"]
    body = "\n\n".join([fence(text["header"].rstrip()), fence(text["footer"].rstrip())])
    return (
        "(cli-ablate-train)=\n## `ablate train`\n\n"
        "Hydra reads the arguments of this verb. "
        "[](configuration/index.md) lists all groups and settings.\n\n" + body
    )


def _verb(parser: argparse.ArgumentParser) -> str:
    parts = [
        f"({anchor(parser.prog)})=\n## `{parser.prog}`",
        _prose(parser.description or ""),
        fence(parser.format_usage().removeprefix("usage: ").rstrip()),
    ]
    rows = [_row(action) for action in parser._actions if action.dest != "help"]
    if rows:
        parts.append(table(["argument", "meaning"], rows))
    if parser.epilog:
        head, _, examples = parser.epilog.partition("\n")
        lines = "\n".join(line.strip() for line in examples.splitlines())
        parts += [f"{head.rstrip(':').capitalize()}:", fence(lines, "sh")]
    return "\n\n".join(parts)


def _row(action: argparse.Action) -> tuple[str, str]:
    names = action.option_strings or [str(action.metavar or action.dest)]
    value = ""
    if action.option_strings and action.nargs != 0:
        metavar = action.metavar or (
            "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
        )
        value = " " + (" ".join(metavar) if isinstance(metavar, tuple) else str(metavar))
    help_text = (action.help or "").replace("%%", "%")
    if "%(default)" in help_text:
        default = f"{action.default:g}" if isinstance(action.default, float) else str(action.default)
        help_text = help_text.replace("%(default)s", default).replace("%(default)g", default)
        help_text = help_text.replace("%(const)s", str(action.const))
    help_text = help_text.replace("%(const)s", str(action.const))
    return ", ".join(f"`{name}{value}`" for name in names), _prose(help_text)


def _prose(text: str) -> str:
    return text.replace("*", r"\*").replace("<", r"\<")


def anchor(prog: str) -> str:
    """Return the target of a verb's section: `ablate bench ops` is at `cli-ablate-bench-ops`."""
    return "cli-" + prog.replace(" ", "-")
