"""Weighted sums over samples between positions, each at a place of its own: `ablate::sampled_sums`.

    y[i, c] = Σ_t  m[i, g, t] · v_c( p_i + d[i, o, t] )      p_i = stride · i
    v_c(p)  = Σ_j  max(0, 1 − |p_y − j_y|) · max(0, 1 − |p_x − j_x|) · v[j, c]        (bilinear, 0 outside)

g is the head of channel c, and o the group of heads g whose samples lie at the same places.
The samples of deformable convolutions (DCNv3, DCNv4) and of the region `sampled`. The backward pass saves
the operands alone and samples again, so that no map is held per tap. Its gradient of a displacement is that
of the bilinear form, which has a kink at whole positions; there it is the one towards larger places. It
refuses a second derivative. `numba` computes on the CPU; on CUDA, which has no kernel of its own yet, and in
float64 `reference` does, tap by tap. The same input gives the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ablate.kernels import dispatch
from ablate.kernels.geometry import constant
from ablate.kernels.precision import as_declared, in_autocast
from ablate.kernels.sampled_sums import reference

__all__ = ["aggregate", "grid"]

NO_TRITON = "has no Triton kernel yet: PyTorch computes it"


def aggregate(values: Tensor, weights: Tensor, displacements: Tensor, *, stride: int = 1) -> Tensor:
    """The equation above.

    Args:
        values: v, (B, H, W, C).
        weights: m, (B, H', W', G, T), G dividing C; channels belong to heads in contiguous blocks.
        displacements: d, (B, H', W', O, T, 2), O dividing G, rows first, in positions; kept in float32 or
            finer.
        stride: distance between the positions that have an output.

    Returns:
        (B, H', W', C) in the dtype of `values`, or of autocast.
    """
    values = in_autocast(values).contiguous()
    exact = torch.promote_types(displacements.dtype, torch.float32)
    weights, displacements = weights.to(values.dtype).contiguous(), displacements.to(exact).contiguous()
    found: Tensor = _sums(values, weights, displacements, stride)
    return found


@constant
def grid(kernel: int, dilation: int, device: torch.device) -> Tensor:
    """(K², 2): displacements of the taps of a neighborhood, rows first, in float32."""
    reach = dilation * (torch.arange(kernel) - kernel // 2)
    taps = torch.stack(torch.meshgrid(reach, reach, indexing="ij"), -1).flatten(0, 1)
    return taps.to(device, torch.float32)


def _computing(values: Tensor) -> Any:
    """The module that computes: `numba` or `reference`."""
    if values.device.type == "cuda" and dispatch.fast(values):
        dispatch.note_fallback("sampled_sums", NO_TRITON)
        return reference
    return dispatch.implementation(values, "sampled_sums")


_OPERANDS = "Tensor values, Tensor weights, Tensor displacements, SymInt stride"


@torch.library.custom_op("ablate::sampled_sums", mutates_args=(), schema=f"({_OPERANDS}) -> Tensor")
def _sums(values: Tensor, weights: Tensor, displacements: Tensor, stride: int) -> Tensor:
    with as_declared(values):
        found: Tensor = _computing(values).aggregate(values, weights, displacements, stride)
    return found


@torch.library.custom_op(
    "ablate::sampled_sums_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {_OPERANDS}) -> (Tensor, Tensor, Tensor)",
)
def _backward(
    grad: Tensor, values: Tensor, weights: Tensor, displacements: Tensor, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the three operands."""
    with as_declared(values):
        found: tuple[Tensor, Tensor, Tensor] = _computing(values).backward(
            grad, values, weights, displacements, stride
        )
    return found


@_sums.register_fake
def _(values: Tensor, weights: Tensor, displacements: Tensor, stride: int) -> Tensor:
    return values.new_empty(*weights.shape[:3], values.shape[-1])


@_backward.register_fake
def _(grad: Tensor, values: Tensor, weights: Tensor, displacements: Tensor, stride: int) -> Any:
    return tuple(x.new_empty(x.shape) for x in (values, weights, displacements))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *operands, ctx.stride = inputs
    ctx.save_for_backward(*operands)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad.contiguous(), *ctx.saved_tensors, ctx.stride), None)


def _no_second_derivative(ctx: Any, *_: Any) -> tuple[None, ...]:
    raise RuntimeError("ablate::sampled_sums has no second derivative")


_sums.register_autograd(_gradients, setup_context=_save)
_backward.register_autograd(_no_second_derivative)


@register_flop_formula(torch.ops.ablate.sampled_sums)
def _flops(values: tuple[int, ...], weights: tuple[int, ...], *args: Any, **kwargs: Any) -> int:
    """Count four positions and one weight per sample and channel, as the papers do."""
    return 10 * math.prod(weights[:3]) * weights[-1] * values[-1]


@register_flop_formula(torch.ops.ablate.sampled_sums_backward)
def _backward_flops(grad: Any, values: tuple[int, ...], weights: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Count four products with the gradient and four sums into that of the values, per sample and channel."""
    return 16 * math.prod(weights[:3]) * weights[-1] * values[-1]
