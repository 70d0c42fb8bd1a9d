"""What holds in every host: timm's own networks but for what stands in their slots."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import timm
import torch
from torch import nn

from ablate import hosts, ops
from ablate.errors import UserError
from ablate.ops import registry

SMALL = {"in_chans": 1, "num_classes": 10}
MICRO = [name for name in hosts.names() if name.endswith("_micro")]
ROOMY = {"convnext_micro": [2]}  # a stage of 32 channels on 14×14, where every entry fits; else the first


def on_meta(name: str, op: str | None, **settings: Any) -> nn.Module:
    with torch.device("meta"):
        return hosts.create(name, op, **settings)


def operator_at(model: nn.Module, placed: hosts.PlacedSlot) -> nn.Module:
    module = model.get_submodule(placed.path)
    return getattr(module, "operator", module)


@pytest.mark.parametrize("op", ops.names())
@pytest.mark.parametrize("host", MICRO)
def test_same_seed_gives_the_same_bits_outside_the_slots(host: str, op: str) -> None:
    stages = ROOMY.get(host, [1])
    slots = [placed.path for placed in hosts.slots(host, stages)]
    inside = tuple(f"{path}." for slot in slots for path in (slot, slot.replace("conv2", "bn2")))

    def outside(op: str | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        state = hosts.create(host, op, stages=stages, **SMALL).state_dict()
        return {key: value for key, value in state.items() if not key.startswith(inside)}

    reference, found = outside(None), outside(op)
    assert reference.keys() == found.keys()
    assert all(torch.equal(reference[key], found[key]) for key in reference)


@pytest.mark.parametrize("op", ops.names())
def test_every_operator_trains_between_layers_that_work_in_place(op: str) -> None:
    model = hosts.create("resnet_micro", op, stages=[1], **SMALL, zero_init_last=False)
    model(torch.randn(2, 1, 28, 28)).square().sum().backward()
    learned = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in learned)


@pytest.mark.parametrize("op", ops.names())
@pytest.mark.parametrize("host", MICRO)
def test_checkpointing_changes_no_bit_and_autocast_is_alike_everywhere(host: str, op: str) -> None:
    """timm checkpoints the blocks; operators return the autocast dtype after every kind of layer."""
    torch.manual_seed(0)
    stages = ROOMY.get(host, [1])
    model = hosts.create(host, op, stages=stages, drop_path_rate=0.5, **SMALL).train()
    x, found, dtypes = torch.randn(2, 1, 28, 28), [], []
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(1)
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        found.append(torch.autograd.grad(model(x).square().sum(), learned))
    assert all(map(torch.equal, *found))
    for placed in hosts.slots(host, stages):
        operator_at(model, placed).register_forward_hook(lambda *given: dtypes.append(given[-1].dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model.eval()(x)
    assert set(dtypes) == {torch.bfloat16}


SIZES: dict[str, tuple[int, int]] = {
    "convnext_micro": (29, 47),
    "convnext_tiny": (70, 101),
    "nat_micro": (29, 47),
    "nat_tiny": (225, 250),
    "resnet50": (225, 250),
    "resnet_micro": (27, 34),
    "swin_micro": (30, 36),
    "swin_tiny": (232, 256),
    "volo_d1": (232, 240),
    "volo_micro": (30, 36),
    "wide_resnet50": (65, 97),
}


@pytest.mark.parametrize("host", SIZES)
def test_every_slot_takes_part_once_on_the_map_that_it_says(host: str) -> None:
    settings: dict[str, Any] = {"img_size": SIZES[host]}
    slots = hosts.slots(host, **settings)
    model = on_meta(host, "dwconv", **settings)
    seen: list[tuple[nn.Module, torch.Size, torch.Size]] = []
    for placed in slots:
        operator_at(model, placed).register_forward_hook(
            lambda operator, inputs, y: seen.append((operator, inputs[0].shape, y.shape))
        )
    model(torch.empty(2, 3, *SIZES[host], device="meta"))
    assert [operator for operator, *_ in seen] == [operator_at(model, placed) for placed in slots]
    for placed, (_, given, made) in zip(slots, seen, strict=True):
        slot = placed.slot
        assert given == (2, *slot.resolution, slot.dim)
        assert made == (2, *(-(-side // slot.stride) for side in slot.resolution), slot.dim)


@pytest.mark.parametrize(
    ("host", "settings", "count"),
    [
        ("swin_tiny", {}, 12),
        ("swin_tiny", {"stages": [1, 2, 3]}, 10),
        ("swin_tiny", {"stages": [4]}, 2),
        ("convnext_tiny", {}, 18),
        ("nat_mini", {}, 18),
        ("nat_base", {"stages": [1, 2, 3]}, 25),
        ("convnext_tiny", {"stages": [3]}, 9),
        ("resnet50", {}, 16),
        ("resnet50", {"strided": "keep"}, 13),
        ("resnet50", {"stages": [2], "strided": "keep"}, 3),
        ("wide_resnet50", {"last_stride": 1, "strided": "keep"}, 14),
        ("volo_d1", {}, 4),
        ("volo_d2", {}, 6),
        ("volo_d3", {}, 8),
        ("volo_d4", {}, 8),
        ("volo_d5", {"stages": [1]}, 12),
    ],
    ids=str,
)
def test_the_slots_asked_for_are_filled(host: str, settings: dict, count: int) -> None:
    model = on_meta(host, "dwconv", **settings)
    assert len([*hosts.operators(model)]) == len(hosts.slots(host, **settings)) == count


@pytest.mark.parametrize(
    ("host", "theirs", "settings"),
    [
        ("convnext_tiny", "convnext_tiny", {}),
        ("resnet50", "resnet50", {}),
        ("swin_tiny", "swin_tiny_patch4_window7_224", {"img_size": 64}),
        ("volo_d1", "volo_d1_224", {"img_size": 64}),
    ],
)
def test_without_an_operator_it_is_timms_network(host: str, theirs: str, settings: dict) -> None:
    x = torch.randn(1, 3, 64, 64)
    logits = []
    for build in (
        lambda: hosts.create(host, None, **settings),
        lambda: timm.create_model(theirs, **settings),
    ):
        torch.manual_seed(0)
        with torch.no_grad():
            logits.append(build().eval()(x))
    assert torch.equal(*logits)


@pytest.mark.parametrize("host", MICRO)
def test_other_image_sizes_run_where_the_host_can_be_built_for_them(host: str) -> None:
    model = hosts.create(host, "elsa", **SMALL, img_size=(20, 44))
    assert model(torch.randn(2, 1, 20, 44)).shape == (2, 10)


@pytest.mark.parametrize("host", ["convnext_micro", "nat_micro", "resnet_micro"])
def test_a_network_of_any_size_is_bound_to_one_by_its_operator_alone(host: str) -> None:
    x = torch.randn(2, 1, 34, 31)
    assert hosts.create(host, "elsa", **SMALL)(x).shape == (2, 10)
    op = {**ops.spec("lsa").defaults, "region": {"name": "global"}}
    with pytest.raises(UserError, match=r"built for a map of \d+×\d+.*\n.*build the host"):
        hosts.create(host, op, **SMALL)(x)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"name": "resnet_mirco"}, "did you mean 'resnet_micro'"),
        ({"name": "swin_micro", "stages": [0]}, "stages count from 1 to 2"),
        ({"name": "resnet50", "stages": 3}, r"write host\.stages=\[3\]"),
        ({"name": "volo_d1", "stages": [2]}, "its slots are in stage 1"),
        ({"name": "resnet_micro", "strided": "kep"}, "did you mean 'keep'"),
        ({"name": "resnet_micro", "last_stride": 3}, "use 2 or 1"),
        ({"name": "resnet_micro", "stages": []}, "leaves no slot"),
        ({"name": "nat_micro", "head_width": 24}, r"32 channels .* heads of 24"),
        ({"name": "nat_micro", "global_pool": "max"}, r"global_pool.*'max'"),
        ({"name": "nat_mini", "layer_scle": 1}, "did you mean 'layer_scale'"),
        ({"name": "swin_micro", "img_size": 29}, "use for example 28×28"),
        ({"name": "volo_d1", "img_size": (224, 220)}, "use for example 224×216"),
        ({"name": "volo_d1", "img_size": 8}, "16×16 pixels or more, not 8×8"),
        ({"name": "convnext_tiny", "img_size": 28}, "32×32 pixels or more, not 28×28"),
        ({"name": "swin_tiny", "img_size": 32, "stages": [1, 2]}, "stage 2: .*larger than the map of 4×4"),
        ({"name": "resnet50", "img_size": 64}, "stage 2: .*larger than the map of 8×8|stage 3: .*of 4×4"),
    ],
    ids=str,
)
def test_refused_before_anything_is_built(arguments: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        hosts.check(op=ops.spec("lsa").defaults, **arguments)
    with pytest.raises(UserError, match=expected), torch.device("meta"):
        hosts.create(op="lsa", **arguments)


def test_an_operator_without_strides_is_told_to_keep_the_strided_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = dataclasses.replace(ops.spec("elsa"), strides=(1,))
    monkeypatch.setitem(registry._ENTRIES, "elsa", entry)
    with pytest.raises(UserError, match=r"stage 2: .*no form with stride 2\n.*host\.strided=keep"):
        hosts.check("resnet_micro", entry.defaults)
    hosts.check("resnet_micro", entry.defaults, strided="keep")


def test_a_setting_that_timm_would_ignore_is_refused() -> None:
    class Lenient(torch.nn.Module):
        def __init__(self, width: int = 3, **ignored: object) -> None:
            super().__init__()

    host = dataclasses.replace(hosts.spec("swin_micro"), build=Lenient)
    hosts._built(host, {"width": 2})
    with pytest.raises(UserError, match=r"'widht'.*\n.*did you mean 'width'"):
        hosts._built(host, {"widht": 2})
