"""Operators start as their authors' code does: the spread of every weight, and what is zero."""

from __future__ import annotations

import math

import pytest
import torch

from ablate import ops

C, K = 96, 7  # channels with 3 heads, a map of 7×7
UNIFORM = math.sqrt(1 / 3)  # standard deviation of U(±1)
DEFAULT = UNIFORM / math.sqrt(C)  # PyTorch's own, of a linear layer
RESNET = math.sqrt(2 / C)  # kaiming-normal, fan-out, of a 1×1 convolution C → C

# Settings beside the defaults; standard deviations; what is zero.
STARTS: dict[str, tuple[dict[str, object], dict[str, float], tuple[str, ...]]] = {
    "aggregated": (
        {"reduction": 1},
        {
            "query.weight": 0.02,
            "key_value.weight": 0.02,
            "output.weight": 0.02,
            "distance.0.weight": 0.02,
            "distance.2.weight": 0.02,
            "pool.weight": math.sqrt(2 / C),
            "query_embedding": 0.02,
            "tokens": 0.02,
            "relative_position_bias_table": 4e-4,
        },
        ("query.bias", "key_value.bias", "output.bias", "pool.bias", "token_bias"),
    ),
    "attn_conv": (
        {"heads": 2},
        {
            "convolution.query_key_value.weight": DEFAULT,
            "convolution.look.weight": UNIFORM / 3,
            "convolution.gate.mix.weight": math.sqrt(2) * DEFAULT,
            "attention.key_value.weight": DEFAULT,
            "output.weight": DEFAULT,
        },
        (),
    ),
    "carafe": (
        {},
        {"compress.weight": math.sqrt(2 / (C + 64)), "encode.weight": 0.001},
        ("compress.bias", "encode.bias"),
    ),
    "condconv": ({}, {"mixture.weight": DEFAULT / 3, "mixture.bias": DEFAULT / 3}, ()),
    "contmix": (
        {},
        dict.fromkeys(("query.linear.weight", "taps.weight", "biases.1", "output.weight"), 0.02),
        ("taps.bias", "output.bias", "excitation.reduce.bias"),
    ),
    "conv": ({}, {"convolution.weight": DEFAULT / 3}, ()),
    "csa": ({}, {"taps": math.sqrt(2 / 9 / C), "weights.expand.weight": 0.02}, ("weights.expand.bias",)),
    "d_dwconv": ({}, {"weights.reduce.weight": DEFAULT, "weights.expand.weight": 2 * DEFAULT}, ("bias",)),
    "dcnv3": (
        {},
        {"value.weight": math.sqrt(1 / C), "output.weight": math.sqrt(1 / C), "surround.weight": UNIFORM / 3},
        ("offsets.weight", "offsets.bias", "weights.weight", "weights.bias", "value.bias", "output.bias"),
    ),
    "dcnv4": (
        {},
        {"value.weight": math.sqrt(1 / C), "output.weight": math.sqrt(1 / C)},
        ("offsets_weights.weight", "offsets_weights.bias", "value.bias"),
    ),
    "ddf": (
        {"kernel": 5, "heads": "1x"},
        {"scale": math.sqrt(2) / 5, "spatial.weight": DEFAULT, "expand.weight": UNIFORM / math.sqrt(C // 5)},
        (),
    ),
    "dilated_reparam": ({}, {"sum.convolutions.0.weight": 0.02, "sum.convolutions.2.weight": 0.02}, ()),
    "dinat": (
        {},
        {"weights.position.relative_position_bias_table": 0.02, "value.weight": 0.02},
        ("value.bias",),
    ),
    "dwconv": ({}, {"weights.filters": UNIFORM / K}, ()),
    "dynamic_conv": (
        {},
        {"mixture.weight": math.sqrt(2 / 9 / C), "reduce.weight": math.sqrt(2 / 25)},
        ("mixture.bias", "expand.bias"),
    ),
    "dynamic_filter": ({}, {"weights.expand.weight": 0.02, "value.weight": 0.02}, ("weights.expand.bias",)),
    "elsa": (
        {"channel": {"ghost_lambda": 1}},
        {
            "weights.query_key.weight": DEFAULT,
            "value.weight": DEFAULT,
            "output.weight": 0.02,
            "ghost.add": 0.02,
            "ghost.multiply": 1.0,
        },
        ("output.bias",),
    ),
    "elsa_equation": (
        {},
        {"weights.query_key.weight": 0.02, "weights.position.key_position": 0.02, "ghost.add": 0.02},
        ("weights.query_key.bias",),
    ),
    "focal": (
        {},
        {
            "query_context_gates.weight": 0.02,
            "output.weight": 0.02,
            "modulator.weight": DEFAULT,
            "contexts.1.weight": UNIFORM / 5,
        },
        ("query_context_gates.bias", "output.bias"),
    ),
    "i_d_dwconv": ({}, {"weights.reduce.weight": DEFAULT, "weights.expand.weight": 2 * DEFAULT}, ()),
    "involution": (
        {},
        {"weights.reduce.weight": 2 * RESNET, "weights.expand.weight": math.sqrt(2 / (K * K * 6))},
        ("weights.expand.bias",),
    ),
    "lesa": (
        {},
        {
            "binary.query_key_value.weight": math.sqrt(1 / C),
            "binary.position.relative": math.sqrt(3 / C),
            "unary.spatial.weight": RESNET / 3,
            "unary.mix.weight": RESNET,
            "fusion.gate.1.weight": RESNET,
        },
        ("fusion.gate.2.bias",),
    ),
    "lesa_qr": (
        {},
        {"binary.position.rows": math.sqrt(6 / C), "binary.position.columns": math.sqrt(6 / C)},
        (),
    ),
    "lesa_window": ({}, {"binary.position.relative": math.sqrt(3 / C), "unary.mix.weight": RESNET}, ()),
    "qna": (
        {},
        {
            "weights.key.weight": C**-0.5,
            "value.weight": C**-0.5,
            "output.weight": C**-0.5,
            "weights.gains": 0.02,
            "weights.query": 0.88 * 8**-0.5,  # cut at two deviations
        },
        ("weights.relative_position_bias_table",),
    ),
    "ls_conv": (
        {},
        {
            "weights.reduce.weight": DEFAULT,
            "weights.look.weight": UNIFORM / K,
            "weights.expand.weight": math.sqrt(2) * DEFAULT,
        },
        ("norm.bias", "output.norm.bias"),
    ),
    "lsa": (
        {},
        {
            "weights.query_key.weight": 0.02,
            "value.weight": 0.02,
            "output.weight": 0.02,
            "weights.position.relative_position_bias_table": 0.02,
        },
        ("weights.query_key.bias", "value.bias", "output.bias"),
    ),
    "lsa_neighborhood": ({}, {"weights.query_key.weight": 0.02}, ("output.bias",)),
    "manhattan": (
        {},
        {"query.weight": 0.02, "value.weight": 0.02, "output.weight": 0.02, "enhance.weight": UNIFORM / 5},
        ("query.bias", "output.bias"),
    ),
    "na": (
        {},
        {"weights.position.relative_position_bias_table": 0.02, "value.weight": 0.02},
        ("value.bias",),
    ),
    "outlook": ({}, {"weights.expand.weight": 0.02, "value.weight": 0.02}, ("weights.expand.bias",)),
    "plg": (
        {},
        {
            "query_key_value.weight": 0.02,
            "global_query.weight": 0.02,
            "global_key_value.weight": 0.02,
            "output.weight": 0.02,
        },
        ("query_key_value.bias", "global_query.bias", "global_key_value.bias", "output.bias"),
    ),
    "rasa": (
        {"reduction": 2},
        {
            "query.weight": 0.02,
            "key_value.weight": 0.02,
            "output.weight": 0.02,
            "atrous": math.sqrt(2 / 9),
            "reduce.weight": math.sqrt(2 / 4 / C),
        },
        ("output.bias", "reduce.bias"),
    ),
    "san_pairwise": ({}, {"centre.weight": DEFAULT, "weights.2.weight": UNIFORM / math.sqrt(C / 4 + 2)}, ()),
    "san_patchwise": ({}, {"value.weight": DEFAULT, "weights.5.weight": UNIFORM / math.sqrt(C / 8)}, ()),
    "sasa": ({}, {"query_key_value.weight": DEFAULT, "rows": 32**-0.5, "columns": 32**-0.5}, ()),
    "slide": (
        {},
        {"deform.weight": UNIFORM / 3, "query_key_value.weight": 0.02, "output.weight": 0.02},
        ("query_key_value.bias", "output.bias"),
    ),
}


def test_every_entry_has_its_start() -> None:
    assert sorted(STARTS) == ops.names()


@pytest.mark.parametrize("name", STARTS)
def test_starts_as_the_authors_do(name: str) -> None:
    settings, deviations, zero = STARTS[name]
    torch.manual_seed(0)
    operator = ops.create(name, C, heads=3, resolution=(7, 7), settings=settings)
    for parameter, deviation in deviations.items():
        values = operator.get_parameter(parameter).detach()
        doubt = 4 / math.sqrt(2 * values.numel())  # four standard errors of a standard deviation
        assert abs(values.std().item() / deviation - 1) < doubt, parameter
        assert abs(values.mean().item() / deviation) < 4 / math.sqrt(values.numel()), parameter
    for parameter in zero:
        assert not operator.get_parameter(parameter).any(), parameter


def test_slide_starts_with_shifts_that_are_not_learned() -> None:
    shift = ops.create("slide", 96, heads=3).shift
    assert [name for name, _ in shift.named_parameters()] == ["bias"]
    assert set(shift.state_dict()) == {"weight", "bias"}  # as in checkpoints in which both were parameters
    assert shift.bias.requires_grad
    assert torch.equal(shift.weight.view(32, 9, 9), torch.eye(9).expand(32, 9, 9))


def test_carafe_starts_as_a_box_filter() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 9, 9, 16)
    box = torch.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), 5, stride=1, padding=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(ops.create("carafe", 16, heads=2)(x), box, rtol=0, atol=0.02)


def test_dynamic_conv_starts_with_equal_shares() -> None:
    torch.manual_seed(0)
    operator, x = ops.create("dynamic_conv", 64, heads=2), torch.randn(2, 6, 6, 64)
    logits = operator.expand(operator.reduce(x.mean((1, 2))).relu())
    shares = (logits / operator.temperature).softmax(-1)
    torch.testing.assert_close(shares, torch.full_like(shares, 0.25), rtol=0, atol=0.02)
