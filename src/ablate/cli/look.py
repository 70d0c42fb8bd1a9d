"""`ablate look`: pictures of what a run's operators look at, and of what the network finds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ablate.cli.parsing import add_runs_dir, add_verb, positive


def add(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    sub = add_verb(
        verbs,
        look,
        "filters, gates or receptive fields of a run on test images, and predictions beside labels",
        "ablate look 3f2a --images 6 --at 0.3 0.5\n  ablate look 3f2a --images ~/photos",
    )
    sub.add_argument("run", metavar="RUN", help="the beginning of a run's signature")
    add_runs_dir(sub)
    sub.add_argument(
        "--images",
        type=_images,
        default=4,
        metavar="N|FOLDER",
        help="number of test images (default: 4), or a folder with images of yours",
    )
    sub.add_argument(
        "--at",
        nargs=2,
        type=float,
        default=(0.5, 0.5),
        metavar=("ROW", "COLUMN"),
        help="the position whose filter is shown, in shares of height and width (default: 0.5 0.5)",
    )
    sub.add_argument("-o", "--output", type=Path, help="where to write (default: `look` in the run's folder)")


def look(arguments: argparse.Namespace) -> None:
    """Draw what a run's operators look at and what it predicts, and print the paths of the figures."""
    from ablate.studies.look import look

    at = tuple(arguments.at)
    done = look(arguments.runs_dir, arguments.run, arguments.images, at, arguments.output)
    if done.changed:
        said = ", ".join(done.changed[:3])
        print(f"computed by other code than today's, which draws it: {said} changed since", file=sys.stderr)
    if done.drawn < done.found:
        print(f"the first {done.drawn} of {done.found} maps are drawn", file=sys.stderr)
    for line in (*done.predicted, *done.paths):
        print(line)


def _images(text: str) -> int | Path:
    """A number of test images, or the place of others."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: give a number, a folder or an image")
    return Path(text) if not text.lstrip("+-").isdigit() else positive(text)
