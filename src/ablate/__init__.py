"""Ablation studies of local vision operators.

`import ablate` alone is light: nothing here imports torch. Start reading in `ablate.ops`
(the operator zoo along its two axes), then `ablate.hosts` (the networks that operators are
put into), `ablate.training`, `ablate.runs` (identity, folders, submission) and
`ablate.results` (collection, statistics, report).
"""

from importlib.metadata import version

__version__ = version("ablate")
