"""Check that requested runs can exist, before anything is written or built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablate.compose import infra as infrastructure
from ablate.compose.request import Request
from ablate.errors import BrokenOperatorError, UserError
from ablate.store.identity import digest, pair_key


def check(
    requests: Sequence[Request], processes: int | None = None, looked_at: set[str] | None = None
) -> list[str]:
    """Ask every part of a run whether it can exist, once for configurations that differ in their seed only.

    An operator whose own constructor fails ends its own runs and no others, unless there are no others.

    Args:
        requests: the runs of one command.
        processes: that compute each run; by infra.devices and infra.launcher.nodes if None.
        looked_at: digests of data sets whose files were looked at before; those of this call are added.

    Returns:
        The conditions whose operator cannot be built, each with what it raised.

    Raises:
        UserError: the first combination that cannot exist, with its overrides.
    """
    import torch

    from ablate import callbacks, data, tasks
    from ablate.training import optimization
    from ablate.training.device import resolve_device
    from ablate.training.recipe import read as read_recipe

    checked: set[str] = set()
    broken: list[str] = []
    looked_at = set() if looked_at is None else looked_at
    for request in requests:
        _check_seed(request.config["seed"])
        key = pair_key(request.config)
        if key in checked:
            continue
        checked.add(key)
        config = request.config
        try:
            infra = infrastructure.read(config["infra"])
            callbacks.check(infra.callbacks)
            resolve_device(infra.device)
            recipe = read_recipe(config["recipe"])
            recipe.check_share(processes or infra.devices * infra.launcher["nodes"])
            optimization.check(recipe)
            files = digest({"data": config["data"], "root": infra.data_root})
            data.check(
                config["data"],
                recipe.augment,
                batch_size=recipe.batch_size,
                data_root=Path(infra.data_root) if infra.data_root else None,
                download=infra.download,
                verify=files not in looked_at,
            )
            looked_at.add(files)
            task = tasks.of_run(config)
            task.check(config)
            if recipe.freeze or recipe.no_decay or recipe.layer_decay:
                with torch.device("meta"):
                    optimization.check_parameters(task.build(config), recipe)
        except UserError as error:
            if len(requests) == 1:
                raise
            where = " ".join(f"{name}={value}" for name, value in request.overrides.items())
            problem = f"{error.problem}  [{where}]"
            if not isinstance(error, BrokenOperatorError):
                raise UserError(problem, error.way_out) from error
            broken.append(problem)
            if len(broken) == len({pair_key(request.config) for request in requests}):
                raise UserError(broken[0], error.way_out) from error
    return broken


def possible(
    requests: Sequence[Request], processes: int | None = None
) -> tuple[list[Request], list[tuple[str, str]]]:
    """Return the runs that can exist; of those that cannot, once for all seeds, the levels and the reason.

    Args:
        requests: the runs of one command.
        processes: see `check`.
    """
    refused: dict[str, str] = {}
    looked_at: set[str] = set()
    found, impossible = [], []
    every = [request.overrides for request in requests]
    names = dict.fromkeys(name for overrides in every for name in overrides if name != "seed")
    varied = [name for name in names if len({overrides.get(name) for overrides in every}) > 1] or [*names]
    for request in requests:
        _check_seed(request.config["seed"])  # a mistake, whatever the combination
        key = pair_key(request.config)
        if key not in refused:
            try:
                check([request], processes, looked_at)
                refused[key] = ""
            except UserError as error:
                refused[key] = error.problem
                levels = (f"{name}={request.overrides[name]}" for name in varied if name in request.overrides)
                impossible.append((" ".join(levels), error.problem))
        if not refused[key]:
            found.append(request)
    return found, impossible


def _check_seed(seed: Any) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(
            f"seed={seed!r} is not a whole number of 0 or more", "several seeds: seed=0,1,2 with -m"
        )
