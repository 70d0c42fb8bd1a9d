"""`ablate export` and `ablate import`: studies and runs as one file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ablate.cli.parsing import add_runs_dir, add_verb


def add(verbs: argparse._SubParsersAction) -> None:
    """Add both verbs."""
    sub = add_verb(
        verbs,
        export,
        "write the finished runs of a study, or one run, into one file",
        "ablate export quick quick.zip",
    )
    sub.add_argument(
        "study", metavar="STUDY|RUN", help="name of a study, or the beginning of a run's signature"
    )
    sub.add_argument("file", metavar="FILE", type=Path, help="to write; must not exist")
    sub.add_argument("--checkpoints", action="store_true", help="take the trained weights too")
    add_runs_dir(sub)
    sub = add_verb(
        verbs,
        import_,
        "add the runs and studies of a file that `ablate export` wrote",
        "ablate import quick.zip",
    )
    sub.add_argument("file", metavar="FILE", type=Path, help="to read")
    add_runs_dir(sub)


def export(arguments: argparse.Namespace) -> None:
    """Write an archive, and say what it has."""
    from ablate.studies import archive

    with _progress("export") as track:
        done = archive.export(
            arguments.runs_dir,
            arguments.study,
            arguments.file,
            checkpoints=arguments.checkpoints,
            track=track,
        )
    left = f"; {done.left} that are not finished are left out" if done.left else ""
    print(f"{arguments.file}: {_counted(done.runs)}, {done.bytes / 1e6:.1f} MB{left}")


def import_(arguments: argparse.Namespace) -> None:
    """Import an archive, and say what is new."""
    from ablate.commands import command
    from ablate.studies import archive

    with _progress("import") as track:
        done = archive.load(arguments.file, arguments.runs_dir, track)
    here = f"; {_counted(done.left)} here already" if done.left else ""
    print(f"{_counted(done.runs)} added to {arguments.runs_dir}{here}")
    if done.study is not None:
        print(f"to compare them: {command('report', done.study, runs_dir=arguments.runs_dir)}")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[Sequence[Any]], Iterable[Any]]]:
    """A function that yields what it gets, and shows on a terminal how much of it is done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        yield partial(progress.track, description=what)


def _counted(runs: int) -> str:
    return f"{runs} run{'' if runs == 1 else 's'}"
