"""Published networks export and compile for any batch, and train under checkpointing.

One network per family, made shallow, and for compilation one per host; every operator compiles in
tests/ops/test_graphs.py. `pytest tests/models/test_network_graphs.py --every-network` walks all networks at
their full depth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from tests.models.test_models import FAMILIES
from torch import Tensor, nn

from ablate.models import CATALOGUE

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
SHALLOW = {  # what a graph of a deeper network repeats
    "swin": {"depths": (2, 1, 1, 1), "img_size": 32},
    "dwnet": {"depths": (2, 1, 1, 1), "img_size": 32},
    "volo": {"img_size": 32},
    "lesa": {"layers": (1, 1, 2, 1), "img_size": 32},
    "ddf": {"layers": (1, 1, 1, 1)},
    "rednet": {},
    "nat": {"depths": (2, 1, 1, 1), "img_size": 32},
}


ONE_PER_HOST = ("elsa_swin_tiny", "elsa_volo_d1", "lesa_resnet50", "nat_mini")

Build = Callable[..., nn.Module]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = ONE_PER_HOST if metafunc.function is test_compiles_once_for_every_batch else FAMILIES
    metafunc.parametrize("name", sorted(CATALOGUE) if metafunc.config.getoption("every_network") else names)


@pytest.fixture
def network(name: str, pytestconfig: pytest.Config) -> Build:
    """Return a function that builds the network `name` for images of 32×32."""
    settings: dict[str, Any] = next(settings for part, settings in SHALLOW.items() if part in name)
    if pytestconfig.getoption("every_network"):
        settings = {key: value for key, value in settings.items() if key == "img_size"}

    def build(**kwargs: Any) -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=7, **settings, **kwargs)

    return build


def test_exports_for_every_batch(network: Build) -> None:
    model = network().eval()
    batch = {0: torch.export.Dim("batch")}
    with torch.no_grad():
        exported = torch.export.export(model, (IMAGES,), dynamic_shapes=(batch,)).module()
        for number in (3, 4):
            assert torch.equal(exported(IMAGES[:number]), model(IMAGES[:number])), number


def test_compiles_once_for_every_batch(network: Build) -> None:
    model = network().eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    try:
        for number in (4, 3):
            images = IMAGES[:number]
            torch._dynamo.mark_dynamic(images, 0)
            with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=number == 3):
                assert torch.equal(compiled(images), model(images)), number
    finally:
        torch._dynamo.reset()


def test_activation_checkpointing_changes_no_bit(network: Build) -> None:
    """Dropped paths are drawn again alike, and blocks do run twice."""
    model = network(drop_path_rate=0.5).train()
    forwards = []

    def gradients() -> list[Tensor]:
        forwards.append(0)
        torch.manual_seed(3)
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return list(torch.autograd.grad(model(IMAGES).square().sum(), learned))

    for module in model.modules():
        if not [*module.children()]:
            module.register_forward_hook(lambda *_: forwards.__setitem__(-1, forwards[-1] + 1))
    plain = gradients()
    model.set_grad_checkpointing()
    for found, expected in zip(gradients(), plain, strict=True):
        assert torch.equal(found, expected)
    assert forwards[1] > 1.5 * forwards[0]
