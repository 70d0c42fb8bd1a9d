"""VOLO hosts: outlook attention in its own place, plain training, and the one image size they are for."""

from __future__ import annotations

import copy

import pytest
import torch

from ablate import hosts, official
from ablate.errors import UserError
from ablate.ops import costs


def test_outlook_from_timms_weights_gives_timms_logits() -> None:
    torch.manual_seed(0)
    theirs = hosts.create("volo_micro", None).eval()
    ours = hosts.create("volo_micro", "outlook").eval()
    official.load(ours, theirs.state_dict())
    x = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert costs.parameters(ours) == costs.parameters(theirs)


def test_training_needs_neither_token_labels_nor_mixed_tokens() -> None:
    model = hosts.create("volo_micro", "dwconv", num_classes=10).train()
    logits = model(torch.randn(2, 3, 28, 28))
    assert logits.shape == (2, 10)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("host", "built"), [("volo_micro", (30, 36)), ("volo_d1", (48, 40))])
def test_another_image_size_is_refused_with_the_one_it_was_built_for(
    host: str, built: tuple[int, int]
) -> None:
    model = copy.deepcopy(hosts.create(host, "dwconv", img_size=built).eval())
    assert model(torch.randn(1, 3, *built)).shape == (1, 1000)
    with pytest.raises(UserError, match=f"built for images of {built[0]}×{built[1]} pixels, not 64×64"):
        model(torch.randn(1, 3, 64, 64))
