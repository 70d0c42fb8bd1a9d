"""A bar on a terminal for work that takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def tracked(what: str) -> Iterator[Callable[[Sequence[Any]], Iterable[Any]]]:
    """A function that yields what it is given, and shows on a terminal how much of it is done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        yield partial(progress.track, description=what)
