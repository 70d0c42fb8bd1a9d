# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From local self-attention to ELSA
# One factor per step, in two orders. A step that gains in one order and not in the other does what another
# step does as well.

# %%
from pathlib import Path

from ablate.results import figures, record

here = Path.cwd()
root = next(folder for folder in (here, *here.parents) if (folder / "experiments" / "lsa_to_elsa").is_dir())
evidence = record.read(root / "experiments" / "lsa_to_elsa", root / "conf")["lsa_to_elsa"]
findings, tables = evidence.findings, {table.name: table for table in evidence.tables}
tables["table"]

# %% [markdown]
# The two walks. In windows the ghost head brings three quarters of the way by itself. Hadamard attention
# moves little in either walk; the convolutions that ELSA's code adds to it are the other large step.
# Zero-padding costs accuracy on a map this small.

# %%
figures.roadmap(findings, evidence.paths)

# %% [markdown]
# Every step with its interval. Where that holds zero, five seeds cannot tell the step from none.

# %%
tables["roadmap"]

# %% [markdown]
# All conditions against windowed attention. Hadamard attention in windows, with the ghost head, is where ELSA
# is: its gain here does not come from the sliding neighborhood.

# %%
figures.forest(findings)
