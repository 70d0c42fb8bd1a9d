"""Self-check of the Triton kernels: each is compared with its reference before it is first used.

The kernels are written and tested where there is no GPU. So each is run at small odd shapes, in all of its
forms, on the card that is to use it (`checked.py`, at the neighborhoods of `cases.py`); where one fails, the
reference computes instead, with a warning. The check runs in processes of its own (`child.py`), because an
illegal access would break the context of the process that meets it, and its verdicts are kept on disk for
each card, set of versions and state of the code (`verdicts.py`). Start reading in `checked.py`. Used by the
`triton` modules of the operations, by `ablate doctor`, `ablate bench` and the set-up of a run.
"""

from ablate.kernels.selfcheck.cases import Operands
from ablate.kernels.selfcheck.checked import Checked, checked
from ablate.kernels.selfcheck.verdicts import failures, prepare

__all__ = ["Checked", "Operands", "checked", "failures", "prepare"]
