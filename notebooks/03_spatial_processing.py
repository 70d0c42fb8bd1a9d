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
# # Spatial processing
# Which terms make the weights, how they are normalised, and where they reach: three factors, all
# combinations, with attention's channel setting.

# %%
from pathlib import Path

import ablate

here = Path.cwd()
root = next(
    folder for folder in (here, *here.parents) if (folder / "experiments" / "spatial_processing").is_dir()
)
studies = ablate.Study.records(root / "experiments" / "spatial_processing", root / "conf")
study = studies["spatial_processing"]
study.table("table")

# %% [markdown]
# Each level against its factor's reference, averaged over the others. The norm changes most, though ELSA's
# paper takes it for secondary; sliding neighborhoods change least, and for the worse.

# %%
study.figure("main_effects")

# %%
study.table("effects")

# %% [markdown]
# What an average hides: pairs of factors. Under softmax no other terms are above content with bias, and
# sliding helps a little; without softmax, terms with positions gain and windows are better.

# %%
study.figure("interactions")

# %%
study.table("interactions")

# %% [markdown]
# Shares of the variance over all runs.

# %%
study.table("variance")

# %% [markdown]
# What it costs. The bias alone under filter-norm, in windows, is cheaper than attention and 5 points above
# it; position terms in windows have 13×13 offsets to pay for.

# %%
study.figure("accuracy_macs")

# %% [markdown]
# The border rule by itself, in a study of its own: NAT's neighborhoods, which move inside at the border,
# lose what masked ones gain over windows, and more.

# %%
studies["spatial_processing/border"].figure("differences")
