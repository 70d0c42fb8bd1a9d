"""The one equation: `LocalOperator`, any point on the two axes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ablate.kernels.layout import average_pool
from ablate.ops.axes import OperatorConfig, norms
from ablate.ops.axes.channel import BatchNormSkip, GhostHead, projection, resolve_heads
from ablate.ops.axes.hadamard_gate import HadamardGateWeights, gated
from ablate.ops.axes.learned_query import LearnedQueryConfig, LearnedQueryWeights
from ablate.ops.axes.pairs import HadamardConfig, PairwiseConfig, PairwiseWeights
from ablate.ops.axes.regions import SampledRegion
from ablate.ops.axes.weights import StaticConfig
from ablate.ops.slot import Slot


class LocalOperator(nn.Module):
    """y_i[c] = Σ_j ( (o_Δ[c])^λ · Norm_j(A_ij[g(c)]) + γ · s_Δ[c] ) · v_j[c].

    The unified form of ELSA (Zhou et al., 2021) for convolution, dynamic filters, local
    self-attention and Hadamard attention. Channels belong to heads in contiguous blocks.

    With a stride there are two rules. Filters that are generated from the centre feature of a sliding
    neighborhood: average each block of the map, generate one filter per block (involution, ELSA). Pairwise
    weights and windows: compute on the whole map, then average each block (SASA, LESA).

    Args:
        config: the point on the two axes, checked for the slot by `ops.resolve`.
        slot: where the operator is.
    """

    def __init__(self, config: OperatorConfig, slot: Slot) -> None:
        super().__init__()
        channel, dim = config.channel, slot.dim
        self.heads = resolve_heads(channel.heads, dim, slot.heads)
        stride = slot.stride if _strides_itself(config) else 1
        self.pooling = slot.stride // stride
        region = config.region.at(slot)
        region = region.without_norm() if config.norm.name in norms.ELEMENTWISE else region
        self.region = region.build(slot, stride)
        self.weights = config.weights.build(slot, self.heads, self.region)
        filters, self.recomputes = self.heads, False
        if isinstance(self.weights, LearnedQueryWeights):
            filters = self.weights.generated
            self.recomputes = self.weights.recomputes and config.norm.name != "group_norm"
        self.norm = norms.build(config.norm, filters, self.heads, self.region)
        self.value = projection(channel.value, dim, channel.value_initialization)
        flax = channel.value_initialization == "lecun"
        self.output = projection(channel.output, dim, "lecun" if flax else "transformer")
        self.ghost = GhostHead(dim, self.region, channel.ghost_lambda, channel.ghost_gamma)
        alike = isinstance(self.weights, HadamardGateWeights)
        still = not isinstance(self.region, SampledRegion)
        self.gates = alike and still and config.norm.name in norms.ELEMENTWISE
        self.attends, self.norm_name = _attends(config), config.norm.name
        self.bias = nn.Parameter(torch.empty(dim)) if channel.bias else None
        if self.bias is not None:
            bound = 1 / math.sqrt(self.region.taps) if isinstance(config.weights, StaticConfig) else 0
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H', W', C), H' = ⌈H / stride⌉."""
        groups = self.region.prepare(x)
        if self.attends and self.region.attends(groups):
            assert isinstance(self.weights, PairwiseWeights)
            y = self.weights.attend(groups, self.value(groups), self.region, x.shape)
        elif self.recomputes and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            assert isinstance(self.weights, LearnedQueryWeights)
            multiply, add = self.ghost()
            values = self.value(groups)
            y = self.weights.attend(groups, values, self.region, self.norm, multiply, add, x.shape)
        elif self.gates:
            assert isinstance(self.weights, HadamardGateWeights)
            gain = self.norm(self.weights.gain(groups, self.region), None)
            multiply, add = self.ghost()
            y = gated(self.value(groups), gain, self.region, multiply, add, x.shape)
        else:
            logits = self.weights(groups, self.region)
            filters = self.norm(logits, self.region.valid(x.shape, x.device))
            if isinstance(self.weights, LearnedQueryWeights):
                filters = self.weights.mix(filters, self.region, self.weights.gains)
            multiply, add = self.ghost()
            y = self.region.aggregate_at(groups, self.value(groups), filters, multiply, add, x.shape)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        skips = isinstance(self.output, BatchNormSkip)
        y = self.output(y, self.region.centres(groups)) if skips else self.output(y)
        return average_pool(self.region.restore(y, x.shape), self.pooling)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, region={type(self.region).__name__}, norm={self.norm_name}"


def _strides_itself(config: OperatorConfig) -> bool:
    pairs = isinstance(config.weights, (PairwiseConfig, HadamardConfig, LearnedQueryConfig))
    return config.region.strides_itself and not pairs


def _attends(config: OperatorConfig) -> bool:
    """Return True if the operator is plain softmax attention, which one kernel can compute."""
    channel, kind = config.channel, config.weights
    plain = isinstance(kind, PairwiseConfig) and {"content"} <= set(kind.terms) <= {
        "content",
        "bias",
        "decay",
    }
    ghost = channel.ghost_lambda or channel.ghost_gamma
    return plain and config.norm.name == "softmax" and not ghost
