"""Weights under their authors' names into our operators and models.

`operators` places the tensors of one operator, `models` renames what surrounds operators in a whole
network, `dense` has the heads of detectors and segmenters, `pretrained` reads what timm publishes. Every
tensor is placed by itself, so that gradients under the authors' names are converted as parameters are. May
import `ablate.ops` and `ablate.hosts`. Start reading in `convert` below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ablate.errors import UserError
from ablate.official.models import rename
from ablate.official.operators import Place, place_of

__all__ = ["convert", "load"]

NAMED = 4  # names of a problem that an error lists
COUNTER = ".num_batches_tracked"
WAY_OUT = "build what the authors built, with the same settings (kernel, heads, λ, γ, stages, …)"


def load(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Put a state dict with the authors' names into our operator or model; strict.

    Counters of batch norms, which older versions of PyTorch did not save, may be missing.

    Raises:
        UserError: tensors without a place, places without a tensor, wrong shapes: how many, and the first.
    """
    converted, unmatched = placed(module, state_dict)
    refuse_misfits(f"the weights do not fit {type(module).__name__}", module, converted, unmatched, WAY_OUT)
    module.load_state_dict(converted)


def refuse_misfits(
    problem: str, module: nn.Module, converted: dict[str, Tensor], unmatched: Sequence[str], way_out: str
) -> None:
    """Refuse weights that are not those of a module, under its own names.

    Counters of batch norms that are missing are added as the module has them.

    Args:
        problem: first line of the error.
        module: whose weights they should be.
        converted: by the module's names.
        unmatched: names of others.
        way_out: last line of the error.

    Raises:
        UserError: how many have no place, are missing or have another shape, and the first of them.
    """
    expected = module.state_dict()
    for name, value in expected.items():
        if name.endswith(COUNTER):
            converted.setdefault(name, value)
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
        lines = [f"{len(names)} {words}: {named(names)}" for words, names in problems.items() if names]
        raise UserError("\n  ".join([problem, *lines]), way_out)


def named(names: Sequence[str]) -> str:
    """List the first NAMED names, and say how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def convert(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the authors' names → under ours, in our shapes.

    Args:
        module: an operator of ours, or a model that holds some.
        tensors: the authors' state dict, or gradients by the same names; a subset will do.

    Raises:
        UserError: tensors that have no counterpart: how many, and the first.
    """
    converted, unmatched = placed(module, tensors)
    if unmatched:
        count = f"{len(unmatched)} tensor{'s' * (len(unmatched) != 1)}"
        raise UserError(f"no place in {type(module).__name__} for {count}: {named(unmatched)}", WAY_OUT)
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
