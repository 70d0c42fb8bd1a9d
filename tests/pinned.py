"""Identities, public names and the command line, which must not change while the code is rearranged.

`python -m tests.pinned` writes tests/golden/pinned.json and tests/test_pinned.py compares. A change that is
meant (a new option, a new study) is written with it and read in the diff.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from ablate.configuration import conf_dir
from ablate.store.identity import pair_key, signature

GOLDEN = Path(__file__).parent / "golden" / "pinned.json"
CONF = conf_dir()
PUBLIC = (  # what notebooks, the README and plug-ins import
    "ablate.api",
    "ablate.callbacks",
    "ablate.data",
    "ablate.errors",
    "ablate.hosts",
    "ablate.models",
    "ablate.official",
    "ablate.ops",
    "ablate.ops.inspection",
    "ablate.ops.kernels",
    "ablate.kernels",
    "ablate.plugins",
    "ablate.results.collect",
    "ablate.results.comparisons",
    "ablate.results.figures",
    "ablate.results.figures.maps",
    "ablate.results.figures.seeds",
    "ablate.results.record",
    "ablate.results.report",
    "ablate.results.statistics",
    "ablate.results.tables",
    "ablate.tasks",
)


def studies() -> dict[str, list[str]]:
    """Signatures of all runs of every study in conf/study, sorted."""
    Plugins.instance()
    found = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for path in sorted((CONF / "study").rglob("*.yaml")):
            name = path.relative_to(CONF / "study").with_suffix("").as_posix()
            found[name] = sorted(map(signature, _runs(name)))
    return found


def pair_keys(study: str) -> set[str]:
    """Pair keys of a study's runs, which do not depend on the weights that a run begins with."""
    Plugins.instance()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return set(map(pair_key, _runs(study)))


def _runs(study: str) -> list[dict[str, Any]]:
    """Configurations of a study: each condition composed once, and seeds exchanged in it."""
    chosen: Any = compose("train", [f"study={study}"], return_hydra_config=True)
    sweep = [f"{key}={value}" for key, value in (chosen.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create(_loader()).parse_overrides(sweep)
    found: list[dict[str, Any]] = []
    conditions: dict[tuple[str, ...], Any] = {}
    for batch in BasicSweeper.split_arguments(parsed, None):
        for overrides in batch:
            condition = tuple(override for override in overrides if not override.startswith("seed="))
            if condition not in conditions:
                composed = compose("train", [f"study={study}", *condition])
                conditions[condition] = OmegaConf.to_container(composed, resolve=True)
            (seed,) = (override for override in overrides if override not in condition)
            found.append(conditions[condition] | {"seed": int(seed.partition("=")[2])})
    return found


def _loader() -> Any:
    from hydra.core.global_hydra import GlobalHydra

    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return hydra.config_loader


def public() -> dict[str, dict[str, str]]:
    """The parameters of every public function and class, by module."""
    found = {}
    for name in PUBLIC:
        module = importlib.import_module(name)
        names = getattr(module, "__all__", None) or sorted(
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", None) == name
        )
        found[name] = {key: _parameters(getattr(module, key)) for key in names}
    return found


def _parameters(value: Any) -> str:
    """Names, kinds and defaults, without types, whose spelling may change."""
    if not callable(value):
        return type(value).__name__
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "callable"
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(bare))


def verbs() -> dict[str, list[str]]:
    """Arguments of every verb of the command line."""
    from ablate.cli import _parser

    found: dict[str, list[str]] = {}

    def walk(parser: argparse.ArgumentParser) -> None:
        found[parser.prog] = sorted(map(_argument, parser._actions))
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for each in action.choices.values():
                    walk(each)

    walk(_parser())
    return found


def _argument(action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        return f"verbs: {' '.join(sorted(action.choices))}"
    names = "/".join(action.option_strings) or str(action.metavar or action.dest)
    choices = "" if action.choices is None else f" of {sorted(map(str, action.choices))}"
    return f"{names} nargs={action.nargs} default={action.default!r}{choices}"


def networks() -> list[str]:
    """The published networks that timm knows after `import ablate.models`."""
    from ablate import models

    return models.names()


def choices() -> dict[str, list[str]]:
    """Every choice of every configuration group, and every key of `infra`."""
    from ablate import hosts, ops

    files = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
    infra = OmegaConf.load(CONF / "infra" / "default.yaml")
    keys: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            keys.append(f"{prefix}{key}")
            if OmegaConf.is_dict(value):
                walk(value, f"{prefix}{key}.")

    walk(infra, "infra.")
    return {"files": files, "infra": sorted(keys), "operators": ops.names(), "hosts": hosts.names()}


def pinned() -> dict[str, Any]:
    """Everything, as it is now."""
    return {
        "studies": studies(),
        "public": public(),
        "verbs": verbs(),
        "networks": networks(),
        "choices": choices(),
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(pinned(), indent=1) + "\n", encoding="utf-8")
