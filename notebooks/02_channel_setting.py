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

from ablate.results import figures, record

here = Path.cwd()
root = next(
    folder for folder in (here, *here.parents) if (folder / "experiments" / "channel_setting").is_dir()
)
studies = record.read(root / "experiments" / "channel_setting", root / "conf")
evidence = studies["channel_setting"]
findings, tables = evidence.findings, {table.name: table for table in evidence.tables}
tables["table"]

# %% [markdown]
# Each level against its factor's reference, averaged over the others.

# %%
figures.main_effects(findings, evidence.factorial)

# %% [markdown]
# What an average hides: pairs of factors. More heads do nothing for attention and much for dynamic filters;
# the ghost head lifts attention by more than three points, and dynamic filters not at all.

# %%
figures.heat_map(findings, evidence.factorial)

# %%
tables["interactions"]

# %% [markdown]
# Accuracy against cost. With the ghost head, attention is where plain dynamic filters are, at 12 % more
# multiply-accumulates; a filter for each channel is above both and costs almost four times as much.

# %%
figures.accuracy_against_macs(findings)

# %% [markdown]
# The ghost head adds filters that do not pass through softmax; filter-norm replaces softmax. Each lifts
# attention by about three points, and both together lift it by no more: both seem to fix the same weakness.

# %%
norm = studies["channel_setting/norm"]
figures.forest(norm.findings)
