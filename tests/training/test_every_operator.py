"""Every entry of the zoo trains in a host of its kind, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate import ops

FEW = ("data.train=128", "data.validation=32", "data.test=32", "infra.threads=1")


@pytest.mark.parametrize("name", ops.names())
def test_loss_falls(ablate: Callable, tmp_path: Path, name: str) -> None:
    host = ops.spec(name).host.split()
    done = ablate("train", f"op={name}", *host, "recipe=debug", "data=synthetic", *FEW)
    assert done.code == 0, done.err
    (metrics,) = (tmp_path / "runs").glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    losses = [line["train_loss"] for line in lines]
    assert losses[-1] < losses[0]
