"""Outputs and every gradient against the authors' own modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ablate import ops

GOLDEN = Path(__file__).parent.parent / "golden"


def read(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]).double() for key in archive.files}


def under(golden: dict[str, Tensor], kind: str) -> Callable[[str], Tensor]:
    """Tensors of a kind, `param` or `grad`, by the authors' name."""
    return lambda name: golden[f"{kind}/{name}"]


def elsa(golden: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The authors' tensors (`param` or `grad`) under our names; their order is query, key, value."""
    get = under(golden, kind)
    inner = 2 * get("attn.0.weight").shape[0]
    ours = {
        "weights.query_key.weight": get("pre_proj.weight")[:inner, :, 0, 0],
        "weights.query_key.bias": get("pre_proj.bias")[:inner],
        "value.weight": get("pre_proj.weight")[inner:, :, 0, 0],
        "value.bias": get("pre_proj.bias")[inner:],
        "weights.mix.weight": get("attn.0.weight"),
        "weights.mix.bias": get("attn.0.bias"),
        "weights.expand.weight": get("attn.2.weight")[:, :, 0, 0],
        "weights.expand.bias": get("attn.2.bias"),
        "output.weight": get("post_proj.weight"),
        "output.bias": get("post_proj.bias"),
    }
    tables = (
        get("ghost_head")
        .flatten(-2)
        .reshape(-1, *ours["value.bias"].shape, get("attn.0.weight")[0, 0].numel())
    )
    names = ["ghost.multiply", "ghost.add"] if len(tables) == 2 else ["ghost.add"]
    return {**ours, **dict(zip(names, tables, strict=True))}


def natten(golden: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    get = under(golden, kind)
    dim = get("proj.bias").shape[0]
    return {
        "weights.query_key.weight": get("qkv.weight")[: 2 * dim],
        "weights.query_key.bias": get("qkv.bias")[: 2 * dim],
        "weights.position.relative_position_bias_table": get("rpb").flatten(1),
        "value.weight": get("qkv.weight")[2 * dim :],
        "value.bias": get("qkv.bias")[2 * dim :],
        "output.weight": get("proj.weight"),
        "output.bias": get("proj.bias"),
    }


def involution(golden: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    theirs = {
        "reduce.weight": "conv1.conv.weight",
        "norm.weight": "conv1.bn.weight",
        "norm.bias": "conv1.bn.bias",
        "norm.running_mean": "conv1.bn.running_mean",
        "norm.running_var": "conv1.bn.running_var",
        "norm.num_batches_tracked": "conv1.bn.num_batches_tracked",
        "expand.weight": "conv2.conv.weight",
        "expand.bias": "conv2.conv.bias",
    }
    found = {f"weights.{ours}": golden.get(f"{kind}/{name}") for ours, name in theirs.items()}
    return {name: t.flatten(1) if t.ndim == 4 else t for name, t in found.items() if t is not None}


CASES = {
    "elsa_k5_lam1_gamma1": (
        lambda: ops.create("elsa", 24, heads=3, channel={"ghost_lambda": 1}, region={"kernel": 5}),
        elsa,
        False,
    ),
    "elsa_k3_lam0_gamma1": (
        lambda: ops.create("elsa", 24, heads=2, weights={"group_width": 4}, region={"kernel": 3}),
        elsa,
        False,
    ),
    "na_k5_d1": (
        lambda: ops.create("lsa_neighborhood", 24, heads=3, region={"kernel": 5, "border": "inside"}),
        natten,
        False,
    ),
    "involution_k7_eval": (lambda: ops.create("involution", 32, heads=1), involution, True),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_authors(name: str) -> None:
    build, rename, channels_first = CASES[name]
    golden = read(name)
    operator: nn.Module = build().double().eval()
    operator.load_state_dict(rename(golden, "param"))
    move = (lambda t: t.permute(0, 2, 3, 1)) if channels_first else (lambda t: t)
    x = move(golden["x"]).contiguous().requires_grad_()
    y = operator(x)
    (y * move(golden["grad_y"])).sum().backward()
    found = {"y": y, "grad_x": x.grad, **{name: value.grad for name, value in operator.named_parameters()}}
    expected = {"y": move(golden["y"]), "grad_x": move(golden["grad_x"]), **rename(golden, "grad")}
    for name, value in found.items():
        scale = expected[name].abs().max().item()  # theirs are float32: rounding goes with the largest entry
        torch.testing.assert_close(
            value, expected[name], rtol=0, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )
