"""Focal modulation against timm's, and in the published networks."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ops.small import build, close, drawn, image
from tests.ops.test_judges import judge, on_images, sizes
from timm.layers import LayerNorm2d
from timm.models.focalnet import FocalModulation
from torch import Tensor, nn

from ablate import official, ops
from ablate.ops import costs


@settings(max_examples=15, deadline=None)
@given(sizes, st.sampled_from([(3, 2, 2), (3, 3, 2), (5, 1, 4)]), st.booleans(), st.booleans())
def test_focal_is_timms(size: tuple, form: tuple[int, int, int], divide: bool, norm: bool) -> None:
    if size == (1, 1):  # on a single position PyTorch has no gradient of a grouped convolution in float64
        size = (1, 2)
    kernel, levels, growth = form
    ours = build("focal", kernel=kernel, levels=levels, growth=growth, divide=divide, norm=norm).double()
    eps = partial(LayerNorm2d, eps=1e-5)  # of the authors; timm's own default is 1e-6
    theirs = drawn(FocalModulation(8, kernel, levels, growth, True, norm, divide, norm_layer=eps))
    official.load(ours, theirs.state_dict())
    judge(ours, theirs, image(*size), on_images(theirs), lambda tensors: official.convert(ours, tensors))


class OnImages(nn.Module):
    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return self.operator(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("name", "levels", "parameters"),
    [("focalnet_tiny_srf", 2, 28_427_116), ("focalnet_tiny_lrf", 3, 28_647_928)],
)
def test_the_published_networks_have_their_parameters(name: str, levels: int, parameters: int) -> None:
    """With our operator instead of timm's in every block."""
    with torch.device("meta"):
        model = timm.create_model(name, layerscale_value=None)
        blocks = [block for block in model.modules() if hasattr(block, "modulation")]
        for block in blocks:
            block.modulation = OnImages(ops.create("focal", block.dim, heads=1, levels=levels))
    assert len(blocks) == 12
    assert costs.parameters(model) == parameters


@settings(max_examples=10, deadline=None)
@given(sizes)
def test_one_open_gate_and_a_query_of_ones_leave_a_depthwise_convolution(size: tuple[int, int]) -> None:
    operator = drawn(build("focal", levels=2))
    with torch.no_grad():
        query, context, _ = operator.split
        layer = operator.query_context_gates
        layer.weight[:query], layer.bias[:query] = 0, 1
        layer.weight[query + context :], layer.bias[query + context :] = 0, torch.tensor([1.0, 0, 0])
    x = image(*size)
    level = layer(x)[..., query : query + context].permute(0, 3, 1, 2)
    expected = F.gelu(operator.contexts[0](level)).permute(0, 2, 3, 1)
    close(operator(x), operator.output(operator.modulator(expected)))
