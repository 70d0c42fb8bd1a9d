"""Libraries as judges: outputs and every gradient against PyTorch's and timm's own layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import build, close, drawn, image
from timm.layers.cond_conv2d import CondConv2d
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.volo import OutlookAttention
from torch import Tensor, nn

from ablate import official

Apply = Callable[[Tensor], Tensor]


def judge(
    ours: nn.Module, theirs: nn.Module, x: Tensor, apply: Apply, convert: Callable[[dict], dict]
) -> None:
    """`apply` is what theirs does to (B, H, W, C); `convert` gives their tensors our names and shapes."""
    grad_y: Tensor | None = None
    found: list[dict[str, Tensor]] = []
    for module, call in ((theirs, apply), (ours, ours)):
        leaf = x.clone().requires_grad_()
        y = call(leaf)
        if grad_y is None:
            grad_y = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
        (y * grad_y).sum().backward()
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        found.append({"y": y, "x": leaf.grad, **(convert(gradients) if module is theirs else gradients)})
    expected, given = found
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        close(given[name], value)


def on_images(layer: nn.Module) -> Apply:
    return lambda x: layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
forms = st.sampled_from([("1", 1), ("1x", 2), ("C/2", 4), ("C", 8)])


@settings(max_examples=20, deadline=None)
@given(sizes, forms, st.sampled_from([1, 3, 5]), st.integers(1, 2), st.booleans())
def test_conv_is_pytorchs(size: tuple, form: tuple, kernel: int, stride: int, bias: bool) -> None:
    groups, count = form
    ours = drawn(build("conv", stride=stride, groups=groups, kernel=kernel, bias=bias))
    theirs = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=count, bias=bias).double()
    theirs.load_state_dict(ours.convolution.state_dict())

    def convert(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"convolution.{name}": value for name, value in tensors.items()}

    judge(ours, theirs, image(*size), on_images(theirs), convert)


@settings(max_examples=20, deadline=None)
@given(sizes, st.sampled_from([1, 3, 7]), st.integers(1, 3), st.integers(1, 2))
def test_dwconv_is_pytorchs(size: tuple, kernel: int, dilation: int, stride: int) -> None:
    region = {"kernel": kernel, "dilation": dilation}  # on any map, for which no host would plan some of them
    ours = build("dwconv", resolution=None, stride=stride, region=region).double()
    padding = dilation * (kernel // 2)
    theirs = drawn(nn.Conv2d(8, 8, kernel, stride, padding, dilation, groups=8))
    official.load(ours, theirs.state_dict())
    judge(ours, theirs, image(*size), on_images(theirs), lambda tensors: official.convert(ours, tensors))


@settings(max_examples=12, deadline=None)
@given(
    # on a single position PyTorch has no gradient of a grouped convolution in float64
    sizes.filter(lambda size: size != (1, 1)),
    st.sampled_from([("1", 1), ("1x", 2)]),
    st.integers(1, 4),
    st.integers(1, 2),
    st.booleans(),
)
def test_condconv_is_timms(size: tuple, form: tuple, experts: int, stride: int, bias: bool) -> None:
    groups, count = form
    ours = drawn(build("condconv", stride=stride, groups=groups, experts=experts, bias=bias))
    theirs = CondConv2d(8, 8, 3, stride, padding=1, groups=count, bias=bias, num_experts=experts).double()
    for name, parameter in ours.mixture.named_parameters():
        theirs.get_parameter(name).data = parameter.data.flatten(1).clone()
    router = drawn(nn.Linear(8, experts))
    router.load_state_dict(ours.router.state_dict())

    def convert(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        named = {f"mixture.{name}": value for name, value in tensors.items()}
        named |= {f"router.{name}": parameter.grad for name, parameter in router.named_parameters()}
        return {name: value.view_as(ours.get_parameter(name)) for name, value in named.items()}

    def apply(x: Tensor) -> Tensor:
        images = x.permute(0, 3, 1, 2)
        return theirs(images, router(images.mean((2, 3))).sigmoid()).permute(0, 2, 3, 1)

    judge(ours, theirs, image(*size, batch=3), apply, convert)


@settings(max_examples=20, deadline=None)
@given(
    sizes,
    st.sampled_from([(3, 1), (3, 2), (5, 1), (5, 2), (5, 3)]),
    st.sampled_from([1, 2, 8]),
    st.booleans(),
)
def test_outlook_is_timms(size: tuple, windows: tuple[int, int], heads: int, bias: bool) -> None:
    kernel, grid = windows
    ours = build("outlook", kernel=kernel, grid=grid, heads=heads, value_bias=bias).double()
    theirs = drawn(OutlookAttention(8, heads, kernel, kernel // 2, grid, qkv_bias=bias))
    official.load(ours, theirs.state_dict())
    judge(ours, theirs, image(*size), theirs, lambda tensors: official.convert(ours, tensors))


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(st.integers(4, 11), st.integers(4, 11)), st.integers(2, 4), st.integers(0, 1), st.integers(1, 2)
)
def test_lsa_is_timms_swin(size: tuple, window: int, index: int, heads: int) -> None:
    """Shifted or not, on maps that windows tile or do not: the block without its norm and MLP."""
    ours = build("lsa", host_heads=heads, resolution=size, index=index, region={"size": window}).double()
    block = SwinTransformerBlock(8, size, heads, window_size=window, shift_size=index * (window // 2))
    block.norm1, block.mlp = nn.Identity(), Nothing()
    drawn(block)
    official.load(ours, block.attn.state_dict())
    judge(
        ours,
        block.attn,
        image(*size),
        lambda x: block(x) - x,
        lambda tensors: official.convert(ours, tensors),
    )


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)
