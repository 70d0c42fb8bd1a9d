"""Checks that every operator of the zoo passes, for an operator of your own.

`check_operator` in a test of yours fails with all that is wrong; `ablate check-op` prints the same as a
table. `subject` builds the operator and its inputs, `checks` are the checks, `run` calls them. Imports of
ablate only `ops`, `hosts` and `errors`; used by `cli` and by this project's own tests.
"""

from ablate.testing.checks import CHECKS
from ablate.testing.run import Result, check_operator, results
from ablate.testing.subject import Subject

__all__ = ["CHECKS", "Result", "Subject", "check_operator", "results"]
