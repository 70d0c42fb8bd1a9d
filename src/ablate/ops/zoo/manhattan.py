"""Manhattan self-attention (RMT): attention that decays with the distance of rows and columns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.kernels.geometry import constant
from ablate.ops.axes.decay import log_decay
from ablate.ops.checks import positive
from ablate.ops.registry import register


@register(
    "manhattan",
    paper="RMT, Fan et al.",
    year=2024,
    channel_setting="the host's heads, value and output projection",
    spatial_processing="whole map, q·k of rotated queries and keys + decay with the distance, softmax; "
    "decomposed: along rows, then columns; beside it a 5×5 depthwise convolution of the values",
    equation=(
        "decomposed  y_rc = Σ_m softmax_m( q̃_rc·k̃_mc/√d + |r−m| ln γ ) "
        "Σ_n softmax_n( q̃_mc·k̃_mn/√d + |c−n| ln γ ) v_mn\n"
        "full        y_i = Σ_j softmax_j( q̃_i·k̃_j/√d + (|Δ row| + |Δ column|) ln γ ) v_j\n"
        "out = W ( y + depthwise_5×5(v) ),  γ_h = 1 − 2^(−2 − 4h/heads)\n"
        "q̃, k̃: channels 2p and 2p+1 rotated by i·θ_p, i = row · W + column"
    ),
    quirks=(
        "the code adds ln γ · distance to the logits, which is a product after the softmax and another "
        "normalization; the paper prints the product alone: op/norm=softmax_decay on a point of the equation",
        "the rotation is not in the paper's equations; its angle is that of the flattened position, so that "
        "a step to the next row turns by W·θ and another width of the map sees other phases",
        "published: decomposed in stages 1 and 2 (1 to 3 in larger networks) and op.decomposed=false in the "
        "others, with op.decay_range 4 to 6",
        "without rotation and its convolution the full form is a point of the equation: "
        "op=lsa op/region=global op.weights.terms=[content,decay]",
        "γ is a constant: the authors' `decay` and `angle` are buffers of the network and not loaded",
    ),
)
class ManhattanAttention(nn.Module):
    """Manhattan self-attention (RMT; Fan et al., CVPR 2024) in either form, on maps of any size.

    Args:
        dim: channels C.
        heads: of C/heads channels each, an even number if queries are rotated.
        decomposed: attend along rows and then along columns instead of over the whole map.
        rotation: rotate queries and keys by their position.
        decay_initial: a, the first head keeps 1 − 2^−a of its weight per step.
        decay_range: b, the exponent grows by b over the heads.

    Raises:
        UserError: heads of an odd number of channels with rotation; a decay that is not positive.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        decomposed: bool,
        rotation: bool,
        decay_initial: float,
        decay_range: float,
    ) -> None:
        positive("op.decay_initial", decay_initial)
        positive("op.decay_range", decay_range)
        if rotation and dim // heads % 2:
            raise UserError(
                f"op.heads: {heads} heads of {dim // heads} channels; rotation needs pairs of channels",
                "use heads of an even number of channels, or op.rotation=false",
            )
        super().__init__()
        self.heads, self.decomposed, self.rotation = heads, decomposed, rotation
        self.initial, self.range, self.scale = decay_initial, decay_range, (dim // heads) ** -0.5
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.enhance = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        for linear in (self.query, self.key, self.value, self.output):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        height, width = x.shape[1:3]
        query, key, values = self.query(x), self.key(x) * self.scale, self.value(x)
        local = self.enhance(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)) for part in (query, key, values))
        if self.rotation:
            sine, cosine = rotation(height, width, query.shape[-1], x.device)
            query, key = (rotate(part, sine, cosine) for part in (query, key))
        if self.decomposed:
            y = self._along([query, key, value], 1, width)  # (B, H, W, heads, d)
            y = self._along([part.transpose(1, 2) for part in (query, key, y)], height, 1).transpose(1, 2)
        else:
            y = self._along([part.flatten(1, 2)[:, None] for part in (query, key, value)], height, width)
            y = y.reshape(value.shape)
        out: Tensor = self.output(y.flatten(-2) + local)
        return out

    def _along(self, maps: list[Tensor], rows: int, columns: int) -> Tensor:
        """Attention of queries, keys and values (B, M, L, heads, d) along L = rows · columns positions."""
        query, key, value = (part.transpose(2, 3) for part in maps)  # (B, M, heads, L, d)
        decay = self._decay(rows, columns, query.device).to(query.dtype)
        if query.is_cuda and not torch.are_deterministic_algorithms_enabled():
            y = F.scaled_dot_product_attention(query, key, value, attn_mask=decay, scale=1.0)
        else:
            logits = query @ key.transpose(-1, -2) + decay
            y = logits.softmax(-1).to(value.dtype) @ value
        return y.transpose(2, 3)

    def _decay(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """ln γ_h · Manhattan distance of all pairs: (heads, L, L)."""
        each = log_decay(self.heads, self.initial, self.range, device)[:, None, None]
        down, right = (each * apart(length, device) for length in (rows, columns))  # (heads, side, side)
        return (down[:, :, None, :, None] + right[:, None, :, None, :]).flatten(3).flatten(1, 2)

    def extra_repr(self) -> str:
        return (
            f"heads={self.heads}, decomposed={self.decomposed}, rotation={self.rotation}, "
            f"decay={self.initial}+{self.range}"
        )


@constant
def apart(length: int, device: torch.device) -> Tensor:
    """Distance of all pairs of positions along one axis: (length, length)."""
    place = torch.arange(length)
    return (place[:, None] - place).abs().to(device)


@constant
def rotation(height: int, width: int, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sine and cosine of i·θ_p, θ_p = 10000^(−p/(channels/2 − 1)), in float64: (H, W, 1, channels/2)."""
    angle = 10000 ** -torch.linspace(0, 1, channels // 2, dtype=torch.float64)
    place = torch.arange(height * width, dtype=torch.float64).view(height, width, 1, 1)
    return (place * angle).sin().to(device), (place * angle).cos().to(device)


def rotate(x: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    """Rotate pairs of channels (2p, 2p + 1) of (B, H, W, heads, d)."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    sine, cosine = sine.to(x.dtype), cosine.to(x.dtype)
    return torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], -1).flatten(-2)
