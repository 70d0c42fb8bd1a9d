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
# # LESA's terms
# Attention's binary term, a convolution's unary term, and three ways of joining them, in the place of the
# micro ResNet's 3×3 convolution. LESA's claim is that attention misses the unary term, and that a gate
# joins the two better than a sum.

# %%
from pathlib import Path

import ablate

here = Path.cwd()
root = next(folder for folder in (here, *here.parents) if (folder / "experiments" / "lesa_terms").is_dir())
studies = ablate.Study.records(root / "experiments" / "lesa_terms", root / "conf")
study = studies["lesa_terms"]
study.table("table")

# %% [markdown]
# All differences from the binary term alone. Every interval holds zero: the small host shows neither that
# attention misses something nor that a gate adds anything. The intervals also say what is excluded: a
# difference of more than a point, either way.

# %%
study.figure("differences")

# %% [markdown]
# How certain is a null result? What five pairs would find four times in five, at the scatter that the
# differences have.

# %%
study.compare().set_index("condition")[["n", "smallest_shown"]].round(1)

# %% [markdown]
# The binary term is expensive: it computes with every pair of positions. The host's own convolution is
# as good as any form that has it.

# %%
study.figure("accuracy_macs")

# %% [markdown]
# The same terms in the windows of the micro Swin gained 7.5 points over windowed attention. That host has
# no convolution and no batch norm beside the operator; this one has both.

# %%
swin = ablate.Study.records(root / "experiments" / "operators", root / "conf")["operators/swin"]
table = swin.table().frame()
table[table["Condition"].isin(["lsa", "lesa_window", "dwconv", "i_d_dwconv"])]
