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
# # Cost
# Every condition that any study trained in the micro Swin, by the same recipe on the same data and seeds,
# against the multiply-accumulates of one image.

# %%
from pathlib import Path

import ablate

here = Path.cwd()
root = next(folder for folder in (here, *here.parents) if (folder / "experiments" / "operators").is_dir())
folders = [
    root / "experiments" / name
    for name in ("operators", "lsa_to_elsa", "channel_setting", "spatial_processing")
]
study = ablate.Study.pooled(folders, "swin_micro", root / "conf")
f"{len(study.conditions)} conditions, {len(study.frame())} runs"

# %%
study.figure("accuracy_macs")

# %% [markdown]
# The Pareto front: what no other condition beats in both. At this scale no attention whose weights depend on
# the image is on it: the cheapest operator of all, a static depthwise convolution, is above windowed
# attention; beside it stands a learned bias under filter-norm, as static; and above both only a dynamic
# filter for every position and channel is worth its price.

# %%
study.table("front")

# %% [markdown]
# The most expensive conditions are not the best: multiply-accumulates and accuracy over all conditions.

# %%
means = study.frame().groupby("condition", as_index=False)[["macs", "test_top1"]].mean()
for row in means.nlargest(6, "macs").itertuples():
    print(f"{row.macs / 1e6:5.1f} M  {row.test_top1:.1f} %  {row.condition}")
