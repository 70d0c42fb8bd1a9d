"""Loading of plug-ins: before a verb starts, whatever it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ablate.errors import UserError

HYDRAS = ("train", "plan", "retry")  # they read infra.plugins=… themselves, too
WITHOUT = ("-h", "--help", "--version")


def load(given: Sequence[str]) -> list[str]:
    """Load the plug-ins of entry points, of the environment, and of `infra.plugins=…` in a command.

    Returns:
        The words that are left to the verb.

    Raises:
        UserError: a plug-in that the command names cannot be loaded.
    """
    from ablate import plugins

    named = [word for word in given if word.lstrip("+").startswith("infra.plugins=")]
    if named:
        from ablate.compose import extensions

        extensions.load_typed(named)
        return [word for word in given if word not in named or given[0] in HYDRAS]
    if given and not any(word in WITHOUT for word in given):
        plugins.load()
    return list(given)


def load_recorded(parsed: argparse.Namespace) -> None:
    """Load the plug-ins of the runs that a verb is about, and print a line for each that is not loaded."""
    if not hasattr(parsed, "runs_dir"):
        return
    from ablate import plugins
    from ablate.compose import extensions

    lines = extensions.load_recorded(_configurations(parsed))
    if parsed.verb.__name__ == "report":
        lines += plugins.lines_of_broken()
    for line in lines:
        print(line, file=sys.stderr)


def _configurations(parsed: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield configurations of the runs that a verb is about; none of what does not exist."""
    from ablate.store import manifest
    from ablate.store.folder import find

    names = [getattr(parsed, name, None) or [] for name in ("study", "run", "runs", "one", "other")]
    studies, *runs = ([each] if isinstance(each, str) else list(each) for each in names)
    for study in studies:
        try:
            planned = manifest.find(parsed.runs_dir, study)
        except UserError:  # the verb itself says so
            continue
        if planned is not None:
            yield from ({"infra": {"plugins": [name]}} for name in planned.plugins)
    for beginning in (run for each in runs for run in each):
        try:
            yield find(parsed.runs_dir, beginning).config(shared=True)
        except UserError:
            continue
