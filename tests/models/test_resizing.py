"""Weights of one image or window size in a network of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.models.test_models import FAMILIES
from timm.layers import resize_rel_pos_bias_table
from timm.models.swin_transformer import checkpoint_filter_fn

import ablate.models
from ablate.errors import UserError
from ablate.models.resizing import _resized, resize_positions
from ablate.ops.binary import DecomposedPositions, FlattenedPositions

GLOBAL = {
    "region": "global",
    "channel": {"ghost_lambda": 1, "ghost_gamma": 1.0},
    "weights": {"terms": ["content", "query_position", "key_position", "bias"]},
}
# What else has positions of one map: settings of an operator.
FORMS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in FAMILIES),
    ("lesa_resnet50", {"op": {"positions": "two_dimensional"}}),
    ("lesa_resnet50", {"op": {"positions": "decomposed"}}),
    ("na_swin_tiny", {"op": GLOBAL}),
]


def build(name: str, form: dict[str, Any], **size: Any) -> torch.nn.Module:
    """The network, for images of a size where it is built for one."""
    try:
        return timm.create_model(name, **form, **size)
    except TypeError as error:  # a ResNet, for images of any size
        assert "img_size" in str(error)
        return timm.create_model(name, **form)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_parameter_fits_another_image_size(name: str, form: dict[str, Any]) -> None:
    other = (192, 256)
    with torch.device("meta"):
        native, wanted = build(name, form, img_size=224), build(name, form, img_size=other)
    found = resize_positions(native.state_dict(), wanted)
    assert {key: tensor.shape for key, tensor in found.items()} == {
        key: tensor.shape for key, tensor in wanted.state_dict().items()
    }


@pytest.mark.parametrize(("name", "form"), [FORMS[FAMILIES.index("slide_swin_tiny")], FORMS[-3], FORMS[-1]])
def test_weights_are_loaded_into_another_size(name: str, form: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = build(name, form, img_size=64, num_classes=2)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    loaded = timm.create_model(
        name,
        **form,
        img_size=96,
        num_classes=2,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "weights.pt"), "num_classes": 2},
    ).eval()
    before = source.state_dict()
    for key, tensor in loaded.state_dict().items():
        if tensor.shape == before[key].shape:
            assert torch.equal(tensor, before[key]), key
        elif not key.endswith("pos_embed"):  # (…, offsets, …): that of a position to itself stays as it is
            axis = next(a for a, size in enumerate(tensor.shape) if size != before[key].shape[a])
            own = [state.select(axis, state.shape[axis] // 2) for state in (tensor, before[key])]
            torch.testing.assert_close(*own, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        assert loaded(torch.randn(1, 3, 96, 96)).isfinite().all()


def test_timms_own_tables_become_what_timm_makes_of_them() -> None:
    source = timm.create_model("elsa_swin_tiny")
    wanted = timm.create_model("elsa_swin_tiny", img_size=256, window_size=8)
    key = "layers.3.blocks.0.attn.relative_position_bias_table"
    ours = resize_positions(source.state_dict(), wanted)
    theirs = checkpoint_filter_fn({key: source.state_dict()[key]}, wanted)
    assert ours[key].shape == (225, 24)
    assert torch.equal(ours[key], theirs[key])
    table = torch.randn(6, 13, 13)
    expected = resize_rel_pos_bias_table(table, (9, 4), (6, 17, 7))
    torch.testing.assert_close(_resized(table, (9, 4)), expected)


@pytest.mark.parametrize("two_dimensional", [True, False])
def test_a_table_that_grows_with_the_offset_still_does(two_dimensional: bool) -> None:
    """Rows below the own one have larger values: on the flattened map too, where offsets coincide."""
    source, wanted = (FlattenedPositions(1, *of, two_dimensional) for of in ((5, 5), (7, 4)))
    values = torch.arange(source.relative.shape[1]).float() - source.relative.shape[1] // 2
    found = resize_positions({"relative": values.expand(2, -1)}, wanted)["relative"]
    places = torch.arange(found.shape[1]) - found.shape[1] // 2
    assert (torch.corrcoef(torch.stack([found[0], places.float()]))[0, 1]) > 0.97
    assert found[0, found.shape[1] // 2].abs() < 1e-4
    torch.testing.assert_close(found, -found.flip(1), rtol=1e-3, atol=1e-3)


def test_rows_and_columns_are_resized_each_by_itself() -> None:
    source, wanted = DecomposedPositions(2, 4, 4), DecomposedPositions(2, 6, 3)
    found = resize_positions({"rows": source.rows, "columns": torch.ones_like(source.columns)}, wanted)
    assert (found["rows"].shape, found["columns"].shape) == ((11, 1), (5, 1))
    torch.testing.assert_close(found["columns"], torch.ones(5, 1))


def test_a_table_of_no_square_map_is_refused() -> None:
    with pytest.raises(UserError, match=r"relative cannot be interpolated: 23 offsets"):
        resize_positions({"relative": torch.zeros(2, 23)}, FlattenedPositions(1, 4, 4, False))
    assert "elsa_swin_tiny" in ablate.models.names()
