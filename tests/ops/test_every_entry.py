"""What every entry of the registry promises; a new one is covered by being registered."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.ops.small import FORMS, build, close, drawn, image
from torch import Tensor, nn

from ablate import ops
from ablate.ops import costs

NARROW = {  # what else lets an entry do with four channels
    "carafe": {"compressed": 3},
    "ddf": {"squeeze": 0.5},
    "san_pairwise": {"share": 2, "reduction": 2},
    "san_patchwise": {"share": 2, "reduction": 2},
}


def gradients(operator: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Of a fixed random sum of y, for the input and every parameter that learns."""
    weights = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
    learned = {name: value for name, value in operator.named_parameters() if value.requires_grad}
    found = torch.autograd.grad((y * weights).sum(), [x, *learned.values()])
    return dict(zip(["x", *learned], found, strict=True))


@pytest.mark.parametrize(("name", "stride"), FORMS)
def test_builds_the_same_from_a_seed_and_again_from_its_state(name: str, stride: int) -> None:
    operator, same, other = (build(name, stride=stride, index=1, seed=seed) for seed in (5, 5, 6))
    for key, value in operator.state_dict().items():
        assert torch.equal(value, same.state_dict()[key]), key
    x = image(5, 7, dtype=torch.float32)
    y = drawn(operator)(x.double())
    assert y.shape == (2, -(-5 // stride), -(-7 // stride), 8)
    other.double().load_state_dict(operator.state_dict())
    for mode in (True, False):
        assert torch.equal(other.train(mode)(x.double()), operator.train(mode)(x.double()))
    before = torch.get_rng_state()
    ops.check(ops.spec(name).defaults, ops.Slot(64, 2, (14, 14), stride))
    assert torch.equal(torch.get_rng_state(), before), "checking a configuration draws from the generator"


@pytest.mark.parametrize(("name", "stride"), FORMS)
def test_true_gradients_of_the_input_and_every_parameter(name: str, stride: int) -> None:
    operator = drawn(build(name, 4, resolution=(3, 4), stride=stride, index=1, **NARROW.get(name, {})))
    x = image(3, 4, dim=4, batch=3).requires_grad_()
    names, parameters = zip(*operator.named_parameters(), strict=True)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(operator, dict(zip(names, values, strict=True)), (x,))

    normalised = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in operator.modules())
    for training in (True, False) if normalised else (False,):
        operator.train(training)
        assert torch.autograd.gradcheck(call, (x, *parameters), fast_mode=True), f"training={training}"


@pytest.mark.parametrize(("name", "stride"), FORMS)
def test_neither_strides_in_memory_nor_other_images_matter(name: str, stride: int) -> None:
    operator = drawn(build(name, stride=stride, index=1)).eval()
    images = image(5, 7).permute(0, 3, 1, 2).contiguous()
    x, permuted = (t.requires_grad_() for t in (image(5, 7), images.permute(0, 2, 3, 1)))
    assert not permuted.is_contiguous()
    y, again = operator(x), operator(permuted)
    close(again, y)
    theirs = gradients(operator, permuted, again)
    for key, value in gradients(operator, x, y).items():
        close(theirs[key], value)
    close(operator(x[1:]), y[1:])


@pytest.mark.parametrize(("name", "stride"), FORMS)
def test_half_precision(name: str, stride: int) -> None:
    operator = drawn(build(name, stride=stride, index=1)).eval()
    x = image(5, 7)
    exact = operator(x)
    scale = exact.abs().max().item()

    def near(y: Tensor, share: float) -> None:
        torch.testing.assert_close(y.double(), exact, rtol=0, atol=share * scale)

    for dtype, share in ((torch.bfloat16, 0.04), (torch.float16, 0.005)):
        half = copy.deepcopy(operator).to(dtype)
        y = half(x.to(dtype))
        assert y.dtype == dtype
        near(y, share)
        near(half(x.to(dtype).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)), share)
        single = copy.deepcopy(operator).float()
        with torch.autocast("cpu", dtype):
            near(single(x.float()), share)


@pytest.mark.parametrize(("name", "stride"), FORMS)
def test_lives_on_the_meta_device_and_is_counted(name: str, stride: int) -> None:
    with torch.device("meta"):
        shadow = build(name, stride=stride)
        y = shadow(torch.empty(2, 5, 7, 8))
    assert y.is_meta
    assert y.shape == (2, -(-5 // stride), -(-7 // stride), 8)
    assert costs.macs(build(name, stride=stride), 1, 5, 7, 8) > 0


@pytest.mark.parametrize("name", ops.names())
def test_moves_with_its_input_exactly_where_it_claims_to(name: str) -> None:
    """Two views of one image, one of them some positions further on: alike away from borders, or not."""
    height, width, margin = 15, 16, 4
    operator = drawn(build(name, resolution=(height, width))).eval()
    whole, claimed = image(height + 4, width + 4), ops.spec(name).equivariance

    def moves_alike(step: int) -> bool:
        here, there = (operator(whole[:, by : by + height, by : by + width]) for by in (0, step))
        here = here[:, margin + step : height - margin, margin + step : width - margin]
        there = there[:, margin : height - margin - step, margin : width - margin - step]
        return torch.allclose(here, there, rtol=1e-10, atol=1e-10)

    if claimed:
        assert moves_alike(claimed)
        assert moves_alike(2 * claimed)
    assert not any(moves_alike(step) for step in range(1, claimed or 3))
