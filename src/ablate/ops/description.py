"""A point of the equation in words, and what follows from its levels; for its entry in the registry."""

from __future__ import annotations

from ablate.ops import axes


def of_channel(config: axes.OperatorConfig) -> str:
    """The channel setting in a few words, as in the zoo table."""
    channel = config.channel
    parts = [
        {"C": "a filter per channel", "1x": "the host's heads"}.get(channel.heads, f"{channel.heads} heads")
    ]
    if channel.ghost_lambda or channel.ghost_gamma:
        parts.append(f"ghost head λ={channel.ghost_lambda} γ={channel.ghost_gamma:g}")
    projected = [name for name in ("value", "output") if getattr(channel, name).startswith("linear")]
    parts.append(f"{' and '.join(projected)} projection" if projected else "no projections")
    if channel.output == "batch_norm_skip":
        parts.append("batch norm and skip")
    return ", ".join(parts)


def of_spatial(config: axes.OperatorConfig) -> str:
    """The spatial processing in a few words: region, weights, norm."""
    region, weights = config.region, config.weights
    where = region.describe(normalized=config.norm.name not in axes.ELEMENTWISE)
    symbols = {
        "content": "q·k",
        "query_position": "q·rᵏ",
        "key_position": "rᵠ·k",
        "bias": "rᵇ",
        "decay": "decay",
    }
    if isinstance(weights, axes.PairwiseConfig):
        what = " + ".join(symbols[term] for term in weights.terms)
    elif isinstance(weights, axes.HadamardConfig):
        what = " + ".join(symbols[term] for term in weights.terms) + " on q⊙k"
    else:
        what = {
            "hadamard_conv": "q⊙k through convolutions",
            "bottleneck": "centre feature, bottleneck",
            "linear": "centre feature, linear",
            "pooled": "pooled feature, bottleneck",
            "pooled_affinity": "q·pooled keys, linear, + rᵇ",
            "static": "static",
            "hadamard_gate": "q⊙k through two layers, alike for all taps",
            "learned_query": "learned queries · k + rᵇ",
            "wide_conv": "surroundings through a wide convolution",
        }[weights.name]
    norm = {
        "softmax": "softmax",
        "filter_norm": "filter-norm",
        "identity": "no norm",
        "tanh": "tanh",
        "softmax_decay": "softmax × γ^distance",
        "group_norm": "group norm over taps and positions",
    }[config.norm.name]
    return f"{where}; {what}; {norm}"


def equivariance(config: axes.OperatorConfig) -> int:
    """The step by which its outputs move with its inputs; 0: none."""
    region, weights = config.region, config.weights
    alternates = isinstance(region, axes.NeighborhoodConfig) and region.dilation == axes.ALTERNATE
    of_the_map = isinstance(weights, (axes.PooledConfig, axes.PooledAffinityConfig))
    of_the_map = of_the_map or config.norm.name == "group_norm"
    return 1 if region.sliding and not alternates and not of_the_map else 0
