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
# # The study `quick`, read again
# Five operators in the same small Swin, three seeds each. Runs with one seed share every weight outside
# the operator and see the same batches, so the honest unit of comparison is the *difference within a seed*.

# %%
from pathlib import Path

import pandas as pd

here = Path.cwd()
root = next(folder for folder in (here, *here.parents) if (folder / "experiments" / "quick").is_dir())
runs = pd.read_csv(root / "experiments" / "quick" / "results.csv")
accuracy = runs.pivot(index="seed", columns="condition", values="test_top1")
accuracy

# %% [markdown]
# Differences from windowed attention, in percentage points: one row a seed.

# %%
differences = accuracy.drop(columns="lsa").sub(accuracy["lsa"], axis=0)
differences.round(2)

# %% [markdown]
# How much of the scatter do pairs remove? The spread of the differences against what two independent
# groups of runs would have shown.

# %%
paired = differences.std()
unpaired = (accuracy.var().drop("lsa") + accuracy["lsa"].var()) ** 0.5
pd.DataFrame({"paired": paired, "unpaired": unpaired}).round(2)

# %% [markdown]
# With three pairs no sign-flip test can go below p = 0.25: this study shows where to look, not what is so.
