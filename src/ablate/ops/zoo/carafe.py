"""CARAFE without a change of resolution."""

from __future__ import annotations

from torch import Tensor, nn

from ablate import kernels
from ablate.ops.axes.norms import softmax
from ablate.ops.checks import odd_kernel, positive
from ablate.ops.registry import RESNET, register


@register(
    "carafe",
    paper="CARAFE, Wang et al.",
    year=2019,
    sliding=("kernel", "encoder_kernel"),
    host=RESNET,
    channel_setting="1 head, no projections",
    spatial_processing="neighborhood 5×5, border zero; features around it through a 3×3 convolution; softmax",
    equation=(
        "y_i[c] = Σ_Δ A_Δ[i, g(c)] · x_{i+Δ}[c]\n"
        "A[i] = softmax_Δ( Conv_3×3(W x + b)_i )   (a mask per head and position)"
    ),
    quirks=(
        "taps outside the map take part in the softmax with value 0: at borders part of the weight is lost",
        "it starts as a box filter: its masks are nearly uniform, whatever the image",
        "made for upsampling; here one mask for every position, or with a stride for every stride-th, from "
        "an encoder that strides",
    ),
    strides=(1, 2),
    equivariance=1,
)
class CARAFE(nn.Module):
    """Content-aware reassembly of features (Wang et al., ICCV 2019) at its input's own resolution.

    A blur whose weights depend on the content: they are positive and sum to one, and channels of a
    head share them.

    Args:
        dim: channels C.
        heads: masks at every position, for contiguous blocks of channels.
        stride: of the output positions.
        kernel: K, odd, of the sum.
        compressed: channels that the encoder sees.
        encoder_kernel: odd, of the convolution that makes the masks.

    Raises:
        UserError: an even kernel, no compressed channel.
    """

    def __init__(
        self, dim: int, heads: int, stride: int, kernel: int, compressed: int, encoder_kernel: int
    ) -> None:
        odd_kernel("op.kernel", kernel)
        odd_kernel("op.encoder_kernel", encoder_kernel)
        positive("op.compressed", compressed)
        super().__init__()
        self.heads, self.stride, self.kernel = heads, stride, kernel
        self.compress = nn.Linear(dim, compressed)
        self.encode = nn.Conv2d(
            compressed, heads * kernel**2, encoder_kernel, stride=stride, padding=encoder_kernel // 2
        )
        nn.init.xavier_uniform_(self.compress.weight)
        nn.init.normal_(self.encode.weight, std=0.001)
        for name, bias in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, ⌈H / stride⌉, ⌈W / stride⌉, C)."""
        return kernels.aggregate(x, self.masks(x), kernel=self.kernel, stride=self.stride)

    def masks(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H', W', heads, K²), positive and with sum one over the taps."""
        logits = self.encode(self.compress(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return softmax(logits.unflatten(-1, (self.heads, self.kernel**2)), None)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, kernel={self.kernel}, stride={self.stride}"
