"""The operator zoo along two axes: channel setting and spatial processing.

`axes` is the typed configuration, `local` the one equation built from `regions`, `weights` and
`norms` over the sums of `kernels`; `zoo` holds the entries, `registry` makes them reachable from
everywhere, `table` prints them. May import nothing of ablate but `errors` and `costs`; hosts,
training and the command line build on `create`, `names` and `spec`. Start reading in `local`.
"""

from ablate.ops.axes import Slot
from ablate.ops.local import LocalOperator
from ablate.ops.registry import check, create, from_config, names, register, spec

__all__ = ["LocalOperator", "Slot", "check", "create", "from_config", "names", "register", "spec"]
