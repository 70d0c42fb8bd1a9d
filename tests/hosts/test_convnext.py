"""ConvNeXt's depthwise convolution is an entry of the zoo: its weights give its logits."""

from __future__ import annotations

import pytest
import torch

from ablate import hosts, official
from ablate.ops import costs


@pytest.mark.parametrize(("host", "size"), [("convnext_micro", 28), ("convnext_tiny", 64)])
def test_dwconv_from_timms_weights_gives_timms_logits(host: str, size: int) -> None:
    torch.manual_seed(0)
    theirs = hosts.create(host, None).eval()
    for name, parameter in theirs.named_parameters():
        if "conv_dw" in name or "gamma" in name:
            torch.nn.init.normal_(parameter, std=0.3)  # biases and layer scale far from zero
    ours = hosts.create(host, "dwconv").eval()
    official.load(ours, theirs.state_dict())
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert costs.parameters(ours) == costs.parameters(theirs)
