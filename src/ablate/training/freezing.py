"""Parameters that a recipe does not train: `recipe.freeze`, patterns of their names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ablate.errors import UserError

SHOWN = 6  # names that an error lists


def matching(model: nn.Module, patterns: Sequence[str] | None, setting: str) -> set[str]:
    """Return the names of the parameters that patterns match, in the manner of a shell.

    Args:
        model: the network.
        patterns: `layers.0.*`, `*.bias`, …
        setting: that has the patterns, for messages.

    Raises:
        UserError: a pattern that matches nothing; some names are listed.
    """
    names = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    for pattern in patterns or ():
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            some = ", ".join([*names[: SHOWN - 1], "…", names[-1]] if len(names) > SHOWN else names)
            raise UserError(f"{setting}: {pattern!r} matches no parameter", f"their names: {some}")
        found |= matched
    return found


def freeze(model: nn.Module, patterns: Sequence[str] | None) -> None:
    """Let no gradient be computed for the parameters that patterns match.

    Raises:
        UserError: a pattern that matches nothing, or nothing is left to train.
    """
    if not patterns:
        return
    frozen = matching(model, patterns, "recipe.freeze")
    parameters = dict(model.named_parameters())
    if not any(value.requires_grad for name, value in parameters.items() if name not in frozen):
        raise UserError(f"recipe.freeze={list(patterns)} leaves nothing to train", "freeze less")
    for name in frozen:
        parameters[name].requires_grad_(False)


def keep_statistics(model: nn.Module, patterns: Sequence[str] | None) -> None:
    """Put batch norms whose parameters are all frozen into evaluation mode, in a network that trains."""
    if not patterns:
        return
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            names = [f"{path}.{name}" for name, _ in module.named_parameters()] or [f"{path}.running_mean"]
            if all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in names):
                module.eval()
