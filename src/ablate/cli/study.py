"""Verbs of a study: where it stands, going on with it, its results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ablate.cli.parsing import add_verb, positive

AGAIN = ("failed", "lost", "damaged", "interrupted")  # options of `retry`


def add(verbs: argparse._SubParsersAction) -> None:
    """All of them."""
    sub = _add(
        verbs,
        status,
        "states of a study's runs, from their folders and the cluster's queue; without STUDY, the studies",
        "ablate status quick --watch",
        studies="?",
    )
    sub.add_argument("-w", "--watch", action="store_true", help="until no run is at work or in a job")
    sub.add_argument("--all", action="store_true", help="every run, also of a study of more than a hundred")
    sub = _add(
        verbs,
        retry,
        "run again what failed, was lost, damaged or interrupted (default: all of these)",
        "ablate retry quick --failed infra.launcher.memory=32G",
    )
    for state in AGAIN:
        sub.add_argument(f"--{state}", action="store_true", help=f"those that are {state}")
    sub.add_argument("--run", action="append", default=[], metavar="RUN", help="this one; may be repeated")
    sub.add_argument(
        "--launcher",
        choices=("inline", "local", "slurm"),
        help="default: slurm if it was used before, else local",
    )
    sub.add_argument(
        "overrides", nargs="*", metavar="infra.KEY=VALUE", help="where runs are computed from now on"
    )
    of_study = verbs.add_parser("study", help="change which runs a study consists of").add_subparsers(
        title="verbs", metavar="VERB", required=True
    )
    sub = _add(
        of_study,
        remove,
        "take runs out of a study; their folders stay, `ablate clean --orphans` deletes them",
        "ablate study remove quick recipe.epochs=1",
    )
    sub.add_argument("levels", nargs="*", metavar="FACTOR=LEVEL", help="runs that have all of these levels")
    sub.add_argument("--run", action="append", default=[], metavar="RUN", help="this one; may be repeated")
    _add(verbs, cancel, "end a study's jobs and processes; what is done stays", "ablate cancel quick")
    sub = add_verb(
        verbs, logs, "what a run printed, and its traceback if it failed", "ablate logs 3f2a --follow"
    )
    sub.add_argument("run", metavar="RUN", help="the beginning of a run's signature")
    _add_runs_dir(sub)
    sub.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")
    sub.add_argument("-n", "--lines", type=positive, help="the last ones only")
    sub = add_verb(
        verbs,
        look,
        "what a run's operators look at: filters, gates or receptive fields on test images",
        "ablate look 3f2a --images 6 --at 0.3 0.5",
    )
    sub.add_argument("run", metavar="RUN", help="the beginning of a run's signature")
    _add_runs_dir(sub)
    sub.add_argument("--images", type=positive, default=4, help="how many test images (default: 4)")
    sub.add_argument(
        "--at",
        nargs=2,
        type=float,
        default=(0.5, 0.5),
        metavar=("ROW", "COLUMN"),
        help="the position whose filter is shown, in shares of height and width (default: 0.5 0.5)",
    )
    sub.add_argument("-o", "--output", type=Path, help="where to write (default: `look` in the run's folder)")
    sub = add_verb(
        verbs,
        clean,
        "show what a folder of runs can do without, and delete it when told",
        "ablate clean --yes",
    )
    _add_runs_dir(sub)
    sub.add_argument("--checkpoints", action="store_true", help="also the weights of finished runs")
    sub.add_argument("--orphans", action="store_true", help="also the folders of runs that no study lists")
    sub.add_argument("--yes", action="store_true", help="delete; else only show")
    _add(
        verbs,
        verify,
        "read every byte of a study's runs, and name the files that are damaged (exit code 1)",
        "ablate verify quick",
    )
    sub = _add(
        verbs,
        sync,
        "send a study's runs to Weights & Biases, once each; only what is new when asked again",
        "ablate sync quick --project my-project",
    )
    sub.add_argument("--project", help="of W&B (default: infra.wandb_project, as the runs have it)")
    sub = _add(
        verbs,
        dashboard,
        "a workspace in Weights & Biases: a study's factors as grouping, its paired differences as panels",
        "ablate dashboard quick --offline",
    )
    sub.add_argument("--entity", help="user or team of W&B (default: the key's own)")
    sub.add_argument("--project", help="of W&B (default: infra.wandb_project, as the runs have it)")
    sub.add_argument("--offline", action="store_true", help="write its specification into the study's folder")
    sub = _add(
        verbs,
        collect,
        "one CSV of the runs of a study or several, failed ones too",
        "ablate collect quick -o quick.csv --curves curves.csv",
        studies="+",
    )
    _add_output(sub)
    sub.add_argument("--curves", type=Path, metavar="CSV", help="also a row an epoch, into this file")
    sub = _add(verbs, report, "page, figures and tables of a study", "ablate report quick -o quick_report")
    _add_output(sub)
    sub.add_argument(
        "--unpaired",
        action="store_true",
        help="compare runs as groups that share nothing, where seeds are no pairs; marked so",
    )
    sub.add_argument(
        "--target",
        type=float,
        metavar="PERCENT",
        help="validation accuracy to tell the time to (default: the baseline's median at its end)",
    )


def _add(
    verbs: argparse._SubParsersAction,
    verb: Callable,
    help_text: str,
    example: str,
    studies: str | None = None,
) -> argparse.ArgumentParser:
    """A verb of one study, or of as many as `studies` says in argparse's way."""
    sub = add_verb(verbs, verb, help_text, example)
    sub.add_argument("study", metavar="STUDY", nargs=studies, help="name of the study, e.g. quick")
    _add_runs_dir(sub)
    return sub


def _add_output(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-o", "--output", type=Path, help="where to write (default: in the study's folder)")


def _add_runs_dir(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where the runs lie (default: runs)")


def status(arguments: argparse.Namespace) -> None:
    """States of a study's runs, or the studies there are."""
    from ablate.studies import status

    if arguments.study is None:
        status.list_studies(arguments.runs_dir)
    elif arguments.watch:
        status.watch(arguments.runs_dir, arguments.study)
    else:
        status.show(arguments.runs_dir, arguments.study, everything=arguments.all)


def retry(arguments: argparse.Namespace) -> None:
    """Run again what did not end well."""
    from ablate.studies.retry import retry

    which = [state for state in AGAIN if getattr(arguments, state)]
    retry(
        arguments.runs_dir,
        arguments.study,
        which,
        arguments.run,
        arguments.launcher,
        arguments.overrides,
    )


def remove(arguments: argparse.Namespace) -> None:
    """Take runs out of a study."""
    from ablate.studies.remove import remove

    remove(arguments.runs_dir, arguments.study, arguments.levels, arguments.run)


def cancel(arguments: argparse.Namespace) -> None:
    """End a study's jobs and processes."""
    from ablate.studies.cancel import cancel

    cancel(arguments.runs_dir, arguments.study)


def logs(arguments: argparse.Namespace) -> None:
    """What a run printed."""
    from ablate.studies import logs

    logs.show(arguments.runs_dir, arguments.run, follow=arguments.follow, lines=arguments.lines)


def look(arguments: argparse.Namespace) -> None:
    """What a run's operators look at."""
    from ablate.studies.look import look

    for path in look(
        arguments.runs_dir, arguments.run, arguments.images, tuple(arguments.at), arguments.output
    ):
        print(path)


def clean(arguments: argparse.Namespace) -> None:
    """What a folder of runs can do without."""
    from ablate.studies.clean import clean

    clean(arguments.runs_dir, arguments.checkpoints, arguments.orphans, delete=arguments.yes)


def verify(arguments: argparse.Namespace) -> None:
    """Name the damaged files of a study."""
    from ablate.studies.verify import verify

    if not verify(arguments.runs_dir, arguments.study):
        sys.exit(1)


def sync(arguments: argparse.Namespace) -> None:
    """A study's pages in Weights & Biases."""
    from ablate.studies.sync import sync

    sync(arguments.runs_dir, arguments.study, arguments.project)


def dashboard(arguments: argparse.Namespace) -> None:
    """A workspace over a study's pages."""
    from ablate.studies.dashboard import dashboard

    dashboard(arguments.runs_dir, arguments.study, arguments.entity, arguments.project, arguments.offline)


def collect(arguments: argparse.Namespace) -> None:
    """One CSV of the runs of a study, or of several that belong together."""
    import pandas as pd

    from ablate.results.collect import collect, collect_metrics, write_csv
    from ablate.store.manifest import study_dir

    frames = [collect(arguments.runs_dir, study) for study in arguments.study]
    frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    path = arguments.output or study_dir(arguments.runs_dir, arguments.study[0]) / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(frame, path)
    if arguments.curves:
        arguments.curves.parent.mkdir(parents=True, exist_ok=True)
        write_csv(collect_metrics(arguments.runs_dir, frame), arguments.curves)
    states = ", ".join(f"{count} {state}" for state, count in frame["state"].value_counts().items())
    print(f"{len(frame)} runs ({states})")
    print(path)


def report(arguments: argparse.Namespace) -> None:
    """Page, figures and tables of a study."""
    from ablate.results.report import report

    paths = report(
        arguments.runs_dir,
        arguments.study,
        arguments.output,
        paired=not arguments.unpaired,
        target=arguments.target,
    )
    table = next(path for path in paths if path.name == "table.md")
    print(table.read_text(encoding="utf-8"))
    for path in paths:
        print(path)
