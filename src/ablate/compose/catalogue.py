"""Register operators without a file in `conf/op` with Hydra."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from ablate import ops
from ablate.ops import configs


def publish_operators() -> None:
    """Make `op=<name>` find every registered operator, with the defaults of its signature as settings."""
    for name in ops.names():
        if configs.preset(name) is None:
            ConfigStore.instance().store(
                group="op", name=name, node=dict(ops.spec(name).defaults), provider="ablate"
            )
