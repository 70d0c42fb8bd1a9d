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

from ablate.results import figures, record, tables

here = Path.cwd()
root = next(folder for folder in (here, *here.parents) if (folder / "experiments" / "operators").is_dir())
folders = [
    root / "experiments" / name
    for name in ("operators", "lsa_to_elsa", "channel_setting", "spatial_processing")
]
findings = record.pooled(folders, root / "conf", "swin_micro")
f"{len(findings.summaries)} conditions, {len(findings.runs)} runs"

# %%
figures.accuracy_against_macs(findings)

# %% [markdown]
# The Pareto front: what no other condition beats in both. At this scale no attention whose weights depend on
# the image is on it: the cheapest operator of all, a static depthwise convolution, is above windowed
# attention; beside it stands a learned bias under filter-norm, as static; and above both only a dynamic
# filter for every position and channel is worth its price.

# %%
tables.front(findings)

# %% [markdown]
# The most expensive conditions are not the best: multiply-accumulates and accuracy over all conditions.

# %%
costs = [(summary.macs / 1e6, summary.mean, summary.condition) for summary in findings.summaries]
for macs, mean, condition in sorted(costs, reverse=True)[:6]:
    print(f"{macs:5.1f} M  {mean:.1f} %  {condition}")
