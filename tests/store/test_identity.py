"""Who a run is."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ablate.store import identity

CONFIG = {
    "op": {"name": "lsa", "channel": {"heads": "1x", "ghost_gamma": 0.0}},
    "recipe": {"epochs": 3},
    "seed": 0,
    "infra": {"device": "cpu"},
    "study": {"name": None},
}


def changed(change: Callable[[dict], object]) -> dict:
    config = copy.deepcopy(CONFIG)
    change(config)
    return config


def test_infra_and_study_are_outside_and_everything_else_inside() -> None:
    same = changed(lambda c: (c["infra"].update(device="cuda"), c.update(study={"name": "quick"})))
    assert identity.signature(same) == identity.signature(CONFIG)
    for change in (
        lambda c: c.update(seed=1),
        lambda c: c["recipe"].update(epochs=4),
        lambda c: c["op"]["channel"].update(heads="C"),
        lambda c: c["op"].update(new=1),
    ):
        assert identity.signature(changed(change)) != identity.signature(CONFIG)
    assert len(identity.signature(CONFIG)) == 12


def test_pairs_differ_in_their_seed_only() -> None:
    other_seed = changed(lambda c: c.update(seed=7))
    assert identity.pair_key(other_seed) == identity.pair_key(CONFIG)
    assert identity.pair_key(changed(lambda c: c["recipe"].update(epochs=4))) != identity.pair_key(CONFIG)


@given(st.integers(-(2**40), 2**40))
def test_a_whole_number_is_the_same_however_it_is_written(number: int) -> None:
    as_int = changed(lambda c: c["op"]["channel"].update(ghost_gamma=number))
    as_float = changed(lambda c: c["op"]["channel"].update(ghost_gamma=float(number)))
    assert identity.signature(as_int) == identity.signature(as_float)


def test_kernels_are_named_alike_without_torch(tmp_path: Path) -> None:
    from ablate.compose.infra import KERNELS
    from ablate.kernels.dispatch import CHOICES

    assert KERNELS == CHOICES
    verbs = "from ablate.studies import cancel, clean, logs, retry, status"
    copied = "from ablate.launch.slurm import snapshot; snapshot.take()"  # what a retry may do as well
    code = f"import sys; {verbs}; {copied}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "False", done.stderr
