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

import ablate

here = Path.cwd()
root = next(folder for folder in (here, *here.parents) if (folder / "experiments" / "lsa_to_elsa").is_dir())
study = ablate.Study.records(root / "experiments" / "lsa_to_elsa", root / "conf")["lsa_to_elsa"]
study.table("table")

# %% [markdown]
# The two walks. In windows the ghost head brings three quarters of the way by itself. Hadamard attention
# moves little in either walk; the convolutions that ELSA's code adds to it are the other large step.
# Zero-padding costs accuracy on a map this small.

# %%
study.figure("roadmap")

# %% [markdown]
# Every step with its interval. Where that holds zero, five seeds cannot tell the step from none.

# %%
study.table("roadmap")

# %% [markdown]
# All conditions against windowed attention. Hadamard attention in windows, with the ghost head, is where ELSA
# is: its gain here does not come from the sliding neighborhood.

# %%
study.figure("differences")
