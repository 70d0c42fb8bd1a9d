"""A bar of progress on the error stream, so that output can be read by programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items one by one; the bar goes when all are done."""
    from rich import progress
    from rich.console import Console

    yield from progress.track(items, what, console=Console(stderr=True), transient=True)
