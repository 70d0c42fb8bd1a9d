"""The command line: `ablate VERB`, one file per verb, each with `add` (its parser) and its function.

A verb prints, and leaves decisions to the packages below. Each imports what it needs when it runs: only the
verbs that compute load torch. `main` is the console script; `train` passes the rest to Hydra. Only `__main__`
(`python -m ablate`) and Hydra's entries (`hydra_plugins`) import this. Start reading here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ablate import commands
from ablate.cli import (
    bench,
    cancel,
    check_op,
    clean,
    collect,
    completion,
    convert,
    dashboard,
    diff,
    doctor,
    evaluate,
    export,
    init,
    loading,
    logs,
    look,
    ops,
    plan,
    report,
    retry,
    status,
    study_remove,
    sync,
    train,
    verify,
)
from ablate.errors import UserError

USER_ERROR = 2  # exit code for what the user can fix
VERBS = (  # in the order of `ablate --help`
    train,
    plan,
    status,
    retry,
    study_remove,
    cancel,
    logs,
    look,
    diff,
    clean,
    verify,
    sync,
    dashboard,
    collect,
    report,
    ops,
    check_op,
    doctor,
    bench,
    convert,
    evaluate,
    export,
    init,
    completion,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of the console script."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        given = loading.load(given)
        if given[:1] == ["plan"] or (given[:1] == ["train"] and "--dry-run" in given):
            plan.plan(given[1:])
            return
        if given[:1] == ["train"]:
            train.train(given[1:])
            return
        if given[:2] == ["completion", completion.WORDS]:
            for word in completion.complete(_parser(), given[2:]):
                print(word)
            return
        parsed = parse(given)
        if getattr(parsed, "searched", False) and (words := commands.found_above(parsed.runs_dir)):
            print(words, file=sys.stderr)
        loading.load_recorded(parsed)
        parsed.verb(parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except BrokenPipeError:  # `ablate ops | head`
        sys.stderr.close()
    except OSError as error:  # a full disk, a folder that cannot be written: the message says which
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def parse(given: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of any verb but `train` and `plan`; settings may be anywhere among the options."""
    parser = _parser()
    parsed, left = parser.parse_known_args(given)
    if left:  # argparse looks for positional arguments once, before the first option
        if not hasattr(parsed, "overrides") or any(word.startswith("-") for word in left):
            parser.error(f"unrecognized arguments: {' '.join(left)}")
        parsed.overrides = [*parsed.overrides, *left]
    if getattr(parsed, "runs_dir", None) is commands.USUAL:  # the default itself, not a folder that was given
        parsed.runs_dir, parsed.searched = commands.default_runs_dir(), True
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ablate",
        description="Ablation studies of local vision operators.",
        epilog="example:\n  ablate train study=quick hydra/launcher=local\n  ablate report quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add(verbs)
    return parser


class _Version(argparse.Action):
    """Print the version; read only when requested."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import ablate

        print(f"ablate {ablate.__version__}")
        parser.exit()
