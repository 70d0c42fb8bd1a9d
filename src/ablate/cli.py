"""The command line: `ablate VERB`. Each verb imports what it needs when it runs."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

USER_ERROR = 2  # exit code for what the user can mend


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of the console script."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["train"]:
            train(given[1:])
            return
        parsed = _parser().parse_args(given)
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


def train(arguments: list[str]) -> None:
    """Hand the rest of the command line to Hydra.

    Raises:
        UserError: a setting or choice that does not exist, or a run that cannot.
    """
    import hydra
    from hydra.errors import HydraException

    from ablate.ops.configs import conf_dir
    from ablate.runs.catalogue import publish_operators
    from ablate.runs.composition import explain

    sys.argv = ["ablate train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come out as they are, to be explained here
    warnings.filterwarnings("ignore", message=".*overriding with `hydra.mode=MULTIRUN`.*")
    publish_operators()
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(_train_one)()
    except HydraException as error:
        raise explain(error) from error


def _train_one(config: DictConfig) -> None:
    """Hydra's task for a single run; sweeps go through a launcher."""
    from hydra.core.hydra_config import HydraConfig

    from ablate.runs.launchers import request, run_inline, run_study

    run_study([request(config, list(HydraConfig.get().overrides.task))], run_inline)


def status(arguments: argparse.Namespace) -> None:
    """States of a study's runs, or the studies there are."""
    from ablate.runs import overview

    if arguments.study is None:
        overview.list_studies(arguments.runs_dir)
    else:
        overview.show(arguments.runs_dir, arguments.study)


def collect(arguments: argparse.Namespace) -> None:
    """One CSV of a study's runs."""
    from ablate.results.collect import collect, write_csv
    from ablate.store.manifest import study_dir

    frame = collect(arguments.runs_dir, arguments.study)
    path = arguments.output or study_dir(arguments.runs_dir, arguments.study) / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(frame, path)
    states = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    print(f"{len(frame)} runs ({states})")
    print(path)


def report(arguments: argparse.Namespace) -> None:
    """Page, figures and tables of a study."""
    from ablate.results.report import report

    paths = report(arguments.runs_dir, arguments.study, arguments.output)
    table = next(path for path in paths if path.name == "table.md")
    print(table.read_text(encoding="utf-8"))
    for path in paths:
        print(path)


def ops(arguments: argparse.Namespace) -> None:
    """The zoo table."""
    from ablate.ops import table

    if arguments.markdown:
        print(table.markdown())
    else:
        table.show()


def doctor(arguments: argparse.Namespace) -> None:
    """What is available here."""
    from ablate.doctor import show

    show(arguments.data_root)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ablate",
        description="Ablation studies of local vision operators.",
        epilog="example:\n  ablate train study=quick hydra/launcher=local\n  ablate report quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("train", help="train one run or a study (Hydra's syntax; see `ablate train --help`)")
    for verb, help_text, example in (
        (status, "states of a study's runs; without STUDY, the studies", "ablate status quick"),
        (collect, "one CSV of a study's runs, failed ones too", "ablate collect quick -o quick.csv"),
        (report, "page, figures and tables of a study", "ablate report quick -o quick_report"),
    ):
        sub = _verb(verbs, verb, help_text, example)
        nargs = "?" if verb is status else None
        sub.add_argument("study", metavar="STUDY", nargs=nargs, help="name of the study, e.g. quick")
        sub.add_argument(
            "--runs-dir", type=Path, default=Path("runs"), help="where the runs lie (default: runs)"
        )
        if verb is not status:
            sub.add_argument(
                "-o", "--output", type=Path, help="where to write (default: in the study's folder)"
            )
    sub = _verb(verbs, ops, "the operator zoo: paper, axes, parameters, multiply-accumulates", "ablate ops")
    sub.add_argument("--markdown", action="store_true", help="as a Markdown table")
    sub = _verb(verbs, doctor, "what is available here and, if not, why", "ablate doctor")
    sub.add_argument("--data-root", type=Path, help="folder of data sets (infra.data_root)")
    return parser


class _Version(argparse.Action):
    """Reads the version only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import ablate

        print(f"ablate {ablate.__version__}")
        parser.exit()


def _verb(
    verbs: argparse._SubParsersAction, call: Callable, help_text: str, example: str
) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = verbs.add_parser(
        call.__name__,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(verb=call)
    return sub
