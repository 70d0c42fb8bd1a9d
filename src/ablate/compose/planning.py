"""A sweep's configurations, composed once for every choice of groups and not once for every run."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf


class Composer:
    """Stands before Hydra's loader of configurations, and is it in everything but `load_sweep_config`.

    Hydra reads and merges all files anew for each run, twice: 0.2 s. Files depend on the choices of groups
    (`op=lsa`, `op/norm=softmax`) only, so the rest (`seed=3`, `op.channel.heads=C`) is applied, by Hydra's
    own function, to a copy of what these choices give.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._parser = OverridesParser.create(config_loader=loader)
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._plain: dict[tuple[str, ...], dict[str, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """As Hydra's, without the node `hydra`, which belongs to no run.

        Sweepers call it to see whether a run can be composed, and do nothing with it: it is kept for `plain`.
        """
        parsed = [self._parsed(override) for override in sweep_overrides]
        of_groups = [one for one in parsed if self._loader.repository.group_exists(one.key_or_group)]
        of_values = [one for one in parsed if one not in of_groups and not one.is_hydra_override()]
        choices = tuple(str(one.input_line) for one in of_groups)
        if choices not in self._composed:
            composed = self._loader.load_sweep_config(master_config, list(choices))
            OmegaConf.set_struct(composed, False)
            del composed["hydra"]
            OmegaConf.set_struct(composed, True)
            self._composed[choices] = composed
        config = copy.deepcopy(self._composed[choices])
        ConfigLoaderImpl._apply_overrides_to_config(of_values, config)
        plain: Any = OmegaConf.to_container(config, resolve=True)
        self._plain[tuple(sweep_overrides)] = plain
        return config

    def plain(self, master_config: DictConfig, sweep_overrides: list[str]) -> dict[str, Any]:
        """The same, resolved into plain containers."""
        if tuple(sweep_overrides) not in self._plain:
            self.load_sweep_config(master_config, sweep_overrides)
        return self._plain.pop(tuple(sweep_overrides))

    @cache  # noqa: B019 - one composer lives as long as the program
    def _parsed(self, override: str) -> Override:
        return self._parser.parse_override(override)
