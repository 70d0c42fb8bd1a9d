"""The operator zoo along two axes: channel setting and spatial processing.

`axes` has the two axes, one module per group of settings; `local` implements the equation from them, with the
kernels of `ablate.kernels` for the sums.
`zoo` has the entries; `registry` makes them reachable from everywhere, and its `resolve` is the one place
where an operator's settings are checked; `table` and `page` print them. May import `ablate.kernels` and the
ground (`errors`, `configuration`); hosts, training and the command line build on `create`, `resolve`, `names`
and `spec`. Start reading in `local`.
"""

from ablate.ops.local import LocalOperator
from ablate.ops.registry import (
    ResolvedOperator,
    check,
    create,
    from_config,
    names,
    register,
    register_preset,
    resolve,
    spec,
)
from ablate.ops.slot import Slot

__all__ = [
    "LocalOperator",
    "ResolvedOperator",
    "Slot",
    "check",
    "create",
    "from_config",
    "names",
    "register",
    "register_preset",
    "resolve",
    "spec",
]
