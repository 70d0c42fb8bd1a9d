"""What an operator looks at is what it sums with."""

from __future__ import annotations

import pytest
import torch

from ablate import ops
from ablate.errors import UserError
from ablate.ops import inspection
from ablate.ops.local import LocalOperator

PRESETS = [name for name in ops.names() if ops.spec(name).config is not None]
MAP = (14, 14)


def operator(name: str, dim: int = 32, **overrides: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return ops.create(name, dim, heads=4, resolution=MAP, index=1, **overrides).eval()


def features(dim: int = 32) -> torch.Tensor:
    return torch.randn(2, *MAP, dim, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("position", [(0, 0), (6, 9)])
@pytest.mark.parametrize("name", PRESETS)
def test_filters_give_the_sum(name: str, position: tuple[int, int]) -> None:
    found, x = operator(name), features()
    assert isinstance(found, LocalOperator)
    maps = inspection.filters(found, x, position)
    values = found.value(x).permute(0, 3, 1, 2)
    found.output = torch.nn.Identity()
    expected = found(x)[:, *position] - (0 if found.bias is None else found.bias)
    torch.testing.assert_close((maps * values).sum((2, 3)), expected, atol=1e-5, rtol=1e-4)


def test_a_pooled_token_is_shared_by_its_cell() -> None:
    found, x = operator("lsa", region="window_and_pooled"), features()
    maps = inspection.filters(found, x, (6, 9))
    values = found.value(x).permute(0, 3, 1, 2)
    found.output = torch.nn.Identity()
    torch.testing.assert_close((maps * values).sum((2, 3)), found(x)[:, 6, 9], atol=1e-5, rtol=1e-4)
    assert maps.all()
    assert torch.equal(maps[..., 0, 0], maps[..., 1, 1])  # one cell of 2×2, outside the window


def test_softmax_without_ghost_head_sums_to_one_and_stays_in_its_region() -> None:
    maps = inspection.filters(operator("lsa_neighborhood"), features(), (6, 9))
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(2, 32))
    assert not maps[:, :, :3].any()
    assert maps[:, :, 3:10, 6:13].all()


def test_a_gate_lies_between_nothing_and_all_and_others_have_none() -> None:
    gate = inspection.gate(operator("lesa"), features())
    assert gate.shape == (2, 32, *MAP)
    assert 0 < gate.min() < gate.max() < 1
    assert inspection.gate(operator("lesa", fusion="sum"), features()) is None
    assert inspection.gate(operator("lsa"), features()) is None


def test_the_receptive_field_of_a_convolution_is_its_kernel() -> None:
    field = inspection.receptive_field(operator("dwconv"), features(), (6, 9))
    inside = torch.zeros(MAP, dtype=torch.bool)
    inside[3:10, 6:13] = True
    assert torch.equal(field > 0, inside.expand(2, *MAP))


def test_a_position_outside_the_map_is_refused() -> None:
    with pytest.raises(UserError, match="14×14"):
        inspection.filters(operator("lsa"), features(), (14, 0))
