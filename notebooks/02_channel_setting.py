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
# # Channel setting
# How many different filters there are over the channels: heads from one to one for every channel, with and
# without a ghost head, for windowed attention and for dynamic filters.

# %%
from pathlib import Path

import ablate

here = Path.cwd()
root = next(
    folder for folder in (here, *here.parents) if (folder / "experiments" / "channel_setting").is_dir()
)
studies = ablate.Study.records(root / "experiments" / "channel_setting", root / "conf")
study = studies["channel_setting"]
study.table("table")

# %% [markdown]
# Each level against its factor's reference, averaged over the others.

# %%
study.figure("main_effects")

# %% [markdown]
# What an average hides: pairs of factors. More heads do nothing for attention and much for dynamic filters;
# the ghost head lifts attention by more than three points, and dynamic filters not at all.

# %%
study.figure("interactions")

# %%
study.table("interactions")

# %% [markdown]
# Accuracy against cost. With the ghost head, attention is where plain dynamic filters are, at 12 % more
# multiply-accumulates; a filter for each channel is above both and costs almost four times as much.

# %%
study.figure("accuracy_macs")

# %% [markdown]
# The ghost head adds filters that do not pass through softmax; filter-norm replaces softmax. Each lifts
# attention by about three points, and both together lift it by no more: both seem to fix the same weakness.

# %%
studies["channel_setting/norm"].figure("differences")
