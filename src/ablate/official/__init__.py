"""Weights under their authors' names into our operators and models.

`operators` places the tensors of one operator, `models` renames what surrounds operators in a whole
network, `dense` has the heads of detectors and segmenters, `pretrained` reads what timm publishes. Every
tensor is placed by itself, so that gradients under the authors' names are converted as parameters are. May
import `ablate.ops` and `ablate.hosts`. Start reading in `convert` below.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ablate.errors import UserError
from ablate.official.models import rename
from ablate.official.operators import Place, place_of

__all__ = ["convert", "load"]

WAY_OUT = "build what the authors built, with the same settings (kernel, heads, λ, γ, stages, …)"


def load(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Put a state dict with the authors' names into our operator or model; strict.

    Raises:
        UserError: tensors without a place, places without a tensor, wrong shapes; all of them listed.
    """
    converted, unmatched = placed(module, state_dict)
    expected = module.state_dict()
    problems = {
        "without a place": unmatched,
        "missing": sorted(expected.keys() - converted.keys()),
        "of another shape": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            for name, tensor in converted.items()
            if tensor.shape != expected[name].shape
        ],
    }
    if any(problems.values()):
        listed = (f"{problem}: {', '.join(found)}" for problem, found in problems.items() if found)
        lines = "\n  ".join([f"the weights do not fit {type(module).__name__}", *listed])
        raise UserError(lines, WAY_OUT)
    module.load_state_dict(converted)


def convert(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the authors' names → under ours, in our shapes.

    Args:
        module: an operator of ours, or a model that holds some.
        tensors: the authors' state dict, or gradients by the same names; a subset will do.

    Raises:
        UserError: tensors that have no counterpart, all of them listed.
    """
    converted, unmatched = placed(module, tensors)
    if unmatched:
        raise UserError(f"no place in {type(module).__name__} for: {', '.join(unmatched)}", WAY_OUT)
    return converted


def placed(module: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Our names and tensors, and the authors' names that have no counterpart, or one that is taken."""
    owners = _owners(module)
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    converted: dict[str, Tensor] = {}
    unmatched: list[str] = []
    for theirs, tensor in tensors.items():
        name = rename(module, theirs, tuple(tensor.shape), own)
        placed = {} if name is None else _place_one(name, tensor, owners)
        if placed is None or not placed.keys() <= own.keys() or placed.keys() & converted.keys():
            unmatched.append(theirs)
        else:
            converted.update(placed)
    return converted, sorted(unmatched)


def _place_one(
    name: str, tensor: Tensor, owners: Mapping[str, tuple[str, nn.Module, Place]]
) -> dict[str, Tensor] | None:
    prefix = max((prefix for prefix in owners if name.startswith(prefix)), key=len, default=None)
    if prefix is None:
        return {name: tensor}
    path, part, place = owners[prefix]
    try:
        placed = place(part, name.removeprefix(prefix), tensor)
    except (AttributeError, IndexError, RuntimeError, ValueError):  # of a rank or size that no place takes
        return None
    return None if placed is None else {path + key: value for key, value in placed.items()}


def _owners(module: nn.Module) -> dict[str, tuple[str, nn.Module, Place]]:
    """Authors' prefix of each operator → our prefix, the operator, and what places its tensors."""
    found: dict[str, tuple[str, nn.Module, Place]] = {}
    for path, part in module.named_modules():
        place = place_of(part)
        if place is not None:
            ours = f"{path}." if path else ""
            theirs = ours.removesuffix("operator.")  # of the layout wrapper that hosts put around it
            found.setdefault(theirs, (ours, part, place))
    return found
