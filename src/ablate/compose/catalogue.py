"""Operators that have no file in `conf/op` made known to Hydra from the registry."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from ablate import ops
from ablate.ops import configs


def publish_operators() -> None:
    """After this, `op=<name>` finds every registered operator, with its signature's defaults as settings."""
    for name in ops.names():
        if configs.preset(name) is None:
            ConfigStore.instance().store(
                group="op", name=name, node=dict(ops.spec(name).defaults), provider="ablate"
            )
