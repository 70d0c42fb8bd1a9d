"""Run the checks of an operator and list their results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ablate import ops
from ablate.errors import UserError, place_of
from ablate.testing.checks import CHECKS, SkippedError
from ablate.testing.subject import Subject

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


class Result(NamedTuple):
    """Result of a check at a stride.

    Attributes:
        check: its name.
        stride: of the operator.
        outcome: ok, failed or skipped.
        detail: what is wrong, or why it was skipped; empty if it is ok.
    """

    check: str
    stride: int
    outcome: str
    detail: str


def results(subject: Subject, checks: Iterable[str] = (), strides: Iterable[int] = ()) -> Iterator[Result]:
    """Yield the result of every check.

    Args:
        subject: the operator; its stride is replaced.
        checks: names of CHECKS; all if empty.
        strides: those of the registration if empty.

    Raises:
        UserError: no such operator or check.
    """
    chosen = list(checks) or list(CHECKS)
    if missing := [name for name in chosen if name not in CHECKS]:
        raise UserError(f"no check {missing[0]!r}", f"known: {', '.join(CHECKS)}")
    for stride in strides or subject.spec.strides:
        one = replace(subject, stride=stride)
        for name in chosen:
            yield _result(name, one)


def _result(name: str, subject: Subject) -> Result:
    try:
        CHECKS[name](subject)
    except SkippedError as reason:
        return Result(name, subject.stride, SKIPPED, str(reason))
    except AssertionError as error:
        return Result(name, subject.stride, FAILED, _first_line(error))
    except Exception as error:  # an operator of somebody's own may raise anything
        return Result(
            name, subject.stride, FAILED, f"{type(error).__name__}: {_first_line(error)}{place_of(error)}"
        )
    return Result(name, subject.stride, OK, "")


def check_operator(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    checks: Iterable[str] = (),
    dim: int = 16,
    heads: int = 2,
    resolution: tuple[int, int] = (14, 14),
) -> None:
    """Run the checks that every operator of the zoo passes, and fail with all that is wrong.

    Args:
        name: a registry entry; import the module that registers it first.
        settings: those that differ from its defaults.
        checks: names of `CHECKS`; all if empty.
        dim: channels.
        heads: of the host.
        resolution: (H, W) of the map.

    Raises:
        AssertionError: one line for each check that failed.
        UserError: no such operator or check.

    Example:
        >>> check_operator("dwconv", checks=["shape", "gradcheck"])
    """
    ops.spec(name)
    subject = Subject(name, settings or {}, dim, heads, resolution)
    failed = [result for result in results(subject, checks) if result.outcome == FAILED]
    lines = [f"{one.check} (stride {one.stride}): {one.detail}" for one in failed]
    assert not failed, "\n".join([f"{name} fails {len(failed)} checks", *lines])


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
