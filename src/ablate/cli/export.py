"""`ablate export` and `ablate import`: studies and runs as one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablate.cli.parsing import add_runs_dir, add_study_verb, add_verb
from ablate.cli.progress import tracked


def add(verbs: argparse._SubParsersAction) -> None:
    """Add both verbs."""
    sub = add_study_verb(
        verbs,
        export,
        "write the finished runs of a study, or one run, into one file",
        "ablate export quick quick.zip",
    )
    sub.add_argument("file", metavar="FILE", type=Path, help="to write; must not exist")
    sub.add_argument("--checkpoints", action="store_true", help="take the trained weights too")
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
    from ablate.results.formats import counted
    from ablate.studies import archive

    with tracked("export") as track:
        done = archive.export(
            arguments.runs_dir,
            arguments.study,
            arguments.file,
            checkpoints=arguments.checkpoints,
            track=track,
        )
    left = f"; {done.left} that are not finished are left out" if done.left else ""
    print(f"{arguments.file}: {counted(done.runs, 'run')}, {done.bytes / 1e6:.1f} MB{left}")


def import_(arguments: argparse.Namespace) -> None:
    """Import an archive, and say what is new."""
    from ablate.commands import command
    from ablate.results.formats import counted
    from ablate.studies import archive

    with tracked("import") as track:
        done = archive.load(arguments.file, arguments.runs_dir, track)
    here = f"; {counted(done.left, 'run')} here already" if done.left else ""
    print(f"{counted(done.runs, 'run')} added to {arguments.runs_dir}{here}")
    if done.study is not None:
        print(f"to compare them: {command('report', done.study, runs_dir=arguments.runs_dir)}")
