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
# # The two axes
# Every operator of the family is one weighted sum over a region around each position:
#
#     y_i[c]  = Σ_j  F_ij[c] · v_j[c]
#     F_ij[c] = (o_Δ[c])^λ · Norm_j( A_ij[g(c)] )  +  γ · s_Δ[c]
#
# *Spatial processing* says what generates the weights A, how they are normalized and which positions j take
# part. *Channel setting* says how many different filters there are over the channels. This notebook draws F
# itself for untrained operators: the pictures differ in the form of the operator and not in its training.

# %%
import torch
from matplotlib import pyplot

from ablate import data, ops
from ablate.ops.inspection import filters

splits = data.create(
    {"name": "fashion_mini"}, seed=0, batch_size=4, augment={}, evaluation_batch_size=4, device="cpu"
)
images = next(iter(splits.test.epoch(0)))[0][1:4]
torch.manual_seed(0)
embed = torch.nn.Conv2d(1, 32, 2, stride=2)  # as in the micro Swin: 14×14 of 32 channels
embed.requires_grad_(False)
features = torch.nn.functional.layer_norm(embed(images).permute(0, 2, 3, 1), (32,))


def column(title, preset, position=(5, 8), head=0, **changes):
    """A title, one head's filter at one position on every image, and the position."""
    torch.manual_seed(1)
    operator = ops.create(preset, 32, heads=2, resolution=(14, 14), **changes)
    for parameter in operator.weights.parameters():
        parameter.data.mul_(12)  # initial weights are small: enlarged, their form can be seen
    maps = filters(operator, features, position).unflatten(1, (operator.heads, -1))[:, head].mean(1)
    return title, maps.numpy(), position


def show(*columns):
    """Three test images, and maps beside them, around a white zero if some of their entries are negative."""
    figure, grid = pyplot.subplots(3, len(columns) + 1, figsize=(1.4 * (len(columns) + 1), 4.5))
    for axes, image in zip(grid[:, 0], images, strict=True):
        axes.imshow(image[0], cmap="gray")
    for place, (title, maps, (row, column)) in enumerate(columns, 1):
        grid[0, place].set_title(title, fontsize=8)
        bound = abs(maps).max()
        for axes, single in zip(grid[:, place], maps, strict=True):
            if maps.min() < 0:
                axes.imshow(single, cmap="RdBu_r", vmin=-bound, vmax=bound)
            else:
                axes.imshow(single, cmap="cividis", vmin=0, vmax=bound)
            axes.plot(column, row, "+", color="tab:orange")
    for axes in grid.flat:
        axes.set_axis_off()
    figure.tight_layout()
    pyplot.close(figure)  # or Jupyter would show it twice
    return figure


# %% [markdown]
# ## Region: which positions take part
# Windows cut the map into squares. A neighborhood slides with its position. NAT's neighborhood moves inside
# at the border.

# %%
show(
    column("window", "lsa"),
    column("neighborhood", "lsa_neighborhood"),
    column("neighborhood\nat the border", "lsa_neighborhood", (0, 12)),
    column("inside\nat the border", "na", (0, 12)),
    column("global", "lsa", region="global"),
)

# %% [markdown]
# ## Weights: what they depend on
# Compare the rows, which are images, and the columns. *Static* weights are the same for every image and
# position. *Pooled* weights are the same for every position of an image. *Linear* and *bottleneck* weights
# depend on the feature at the center, *pairwise* and *Hadamard* weights on the features at both positions.

# %%
free = {"region": "neighborhood", "norm": "identity"}
show(
    column("static", "lsa", weights="static", **free),
    column("static\nelsewhere", "lsa", (9, 5), weights="static", **free),
    column("linear", "lsa", weights="linear", **free),
    column("linear\nelsewhere", "lsa", (9, 5), weights="linear", **free),
    column("pairwise", "lsa", weights="pairwise", **free),
    column("hadamard", "lsa", weights="hadamard", **free),
)

# %% [markdown]
# ## Norm: what is done to them
# Softmax makes the weights positive, with sum 1. Filter-norm gives them mean 0 and one standard deviation.
# Identity leaves them as they are.

# %%
region = {"region": "neighborhood", "weights": "linear"}
show(*(column(norm, "lsa", norm=norm, **region) for norm in ("softmax", "filter_norm", "identity")))

# %% [markdown]
# ## Channel setting: how many filters there are
# Attention has one filter per head, a depthwise convolution one per channel. The ghost head keeps the
# filters of the heads and adds a static filter to each channel. The pictures show two channels of one head,
# without it and with it.


# %%
def channel(title, number, **changes):
    """A title, one channel's filter, and the position."""
    torch.manual_seed(1)
    operator = ops.create("lsa_neighborhood", 32, heads=2, resolution=(14, 14), **changes)
    maps = filters(operator, features, (5, 8))[:, number]
    return title, maps.numpy(), (5, 8)


show(
    channel("head 1\nchannel 1", 0),
    channel("head 1\nchannel 2", 1),
    channel("ghost head\nchannel 1", 0, channel="ghost_head"),
    channel("ghost head\nchannel 2", 1, channel="ghost_head"),
)

# %% [markdown]
# The studies under `experiments/` train networks that differ in one of these choices.
