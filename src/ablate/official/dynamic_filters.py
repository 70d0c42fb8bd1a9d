"""Places of the authors' tensors in our convolutions and in DDF."""

from __future__ import annotations

from torch import Tensor, nn

from ablate.official.operators import Place, by_table
from ablate.ops.zoo.convolution import Convolution
from ablate.ops.zoo.ddf import DDF

_convolution = by_table(
    {
        r"(weight|bias)": r"convolution.\1",
        r"lk_origin\.(weight|bias)": r"convolution.\1",  # of a merged dilated reparam block
    }
)

_branches = by_table(
    {
        r"spatial_branch\.0\.(weight|bias)": r"spatial.\1",
        r"channel_branch\.1\.(weight|bias)": r"reduce.\1",
        r"channel_branch\.3\.(weight|bias)": r"expand.\1",
    }
)


def _ddf(operator: nn.Module, name: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """DDFPack: both branches, and the flat scale of the channel filters, channels first."""
    assert isinstance(operator, DDF)
    if name == "channel_branch.4.std":
        return {"scale": tensor.reshape(-1, operator.taps)}
    return _branches(operator, name, tensor)


PLACES: dict[type[nn.Module], Place] = {Convolution: _convolution, DDF: _ddf}
