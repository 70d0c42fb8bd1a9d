"""One published network, and how timm comes to know it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
from timm.models import build_model_with_cfg, register_model, register_notrace_module
from timm.models._pretrained import DefaultCfg, PretrainedCfg
from torch import nn

from ablate import ops
from ablate.errors import require_name
from ablate.models.resizing import resize_positions
from ablate.ops import configs

default_cfgs: dict[str, DefaultCfg] = {}  # where timm looks for a model's input size, mean and crop
__all__: list[str] = ["Hybrid", "register"]  # timm adds the entry points


@dataclass(frozen=True)
class Hybrid:
    """A network from a paper: timm's class with an operator in some of its slots.

    Attributes:
        like: the timm model whose input size, mean, standard deviation and crop it shares.
        build: the network from timm's keyword arguments.
        about: paper, and what is worth knowing about this form of it.
        features: how timm's feature extraction reads it.
        fixed: the operator belongs to one size of its map, and so does the network.
        layers: names of its first convolution and its classifier, where they are not those of `like`.
    """

    name: str
    like: str
    build: Callable[..., nn.Module]
    about: str
    features: dict[str, Any] = field(default_factory=dict)
    fixed: bool = False
    layers: dict[str, str] = field(default_factory=dict)


def operator(name: str, *overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """An operator's configuration: its defaults, a hybrid's settings, then the caller's."""
    config = ops.spec(name).defaults
    for changes in overrides:
        config = configs.override(config, changes or {})
    return config


def register(hybrid: Hybrid) -> None:
    """Make `timm.create_model(hybrid.name)` build it. No weights are published under these names."""
    require_name("a network", hybrid.name)
    theirs = timm.get_pretrained_cfg(hybrid.like)
    assert theirs is not None, hybrid.like
    of_weights = ("url", "file", "hf_hub_id", "hf_hub_filename", "tag", "license", "origin_url", "paper_ids")
    of_evaluation = ("test_input_size", "test_crop_pct")
    ours: PretrainedCfg = dataclasses.replace(
        theirs,
        architecture=hybrid.name,
        fixed_input_size=theirs.fixed_input_size or hybrid.fixed,
        **dict.fromkeys([*of_weights, *of_evaluation]),
        **hybrid.layers,
    )
    default_cfgs[hybrid.name] = DefaultCfg(tags=_tags(), cfgs={"": ours})

    def build(**kwargs: Any) -> nn.Module:
        model = hybrid.build(**kwargs)
        for module in model.modules():
            if type(module).__module__.startswith("ablate.ops."):
                register_notrace_module(type(module))  # torch.fx takes an operator whole
        return model

    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build_model_with_cfg(
            build,
            hybrid.name,
            pretrained,
            feature_cfg=dict(hybrid.features),
            pretrained_filter_fn=resize_positions,
            **kwargs,
        )

    entry.__name__, entry.__module__, entry.__doc__ = hybrid.name, __name__, hybrid.about
    register_model(entry)


def _tags() -> Any:
    tags = DefaultCfg().tags
    tags.append("")
    return tags
