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

from ablate.results import figures, record

here = Path.cwd()
root = next(
    folder for folder in (here, *here.parents) if (folder / "experiments" / "spatial_processing").is_dir()
)
studies = record.read(root / "experiments" / "spatial_processing", root / "conf")
evidence = studies["spatial_processing"]
findings, tables = evidence.findings, {table.name: table for table in evidence.tables}
tables["table"]

# %% [markdown]
# Each level against its factor's reference, averaged over the others. The norm changes most, though ELSA's
# paper takes it for secondary; sliding neighborhoods change least, and for the worse.

# %%
figures.main_effects(findings, evidence.factorial)

# %%
tables["effects"]

# %% [markdown]
# What an average hides: pairs of factors. Under softmax no other terms are above content with bias, and
# sliding helps a little; without softmax, terms with positions gain and windows are better.

# %%
figures.heat_map(findings, evidence.factorial)

# %%
tables["interactions"]

# %% [markdown]
# Shares of the variance over all runs.

# %%
tables["variance"]

# %% [markdown]
# What it costs. The bias alone under filter-norm, in windows, is cheaper than attention and 5 points above
# it; position terms in windows have 13×13 offsets to pay for.

# %%
figures.accuracy_against_macs(findings)

# %% [markdown]
# The border rule by itself, in a study of its own: NAT's neighborhoods, which move inside at the border,
# lose what masked ones gain over windows, and more.

# %%
border = studies["spatial_processing/border"]
figures.forest(border.findings)
