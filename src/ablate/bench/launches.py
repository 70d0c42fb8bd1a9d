"""Launches of the Triton kernels at the shapes of published networks: to compile, to time, to inspect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ablate.kernels.geometry import Neighborhood, offsets_per_axis, strided

FACTORS = ("multiply", "add")
BATCH = 64
META = torch.device("meta")


@dataclass(frozen=True)
class Shape:
    """One operator of a published network, on maps of `size` × `size`."""

    name: str
    size: int
    channels: int
    heads: int
    kernel: int
    border: str = "zero"
    stride: int = 1
    attention: bool = False  # also fused, where one kernel does it
    factors: tuple[str, ...] = ()  # which static factors, of FACTORS
    axial: bool = False  # whether attention adds a row's and a column's term
    slide: bool = False  # slide attention, and nothing else


def shapes() -> list[Shape]:
    """The operators of Swin's hosts (T and S, B), ELSA and slide among them, I-D-DWNet, RedNet, DDF, SASA."""
    found = []
    for model, dim in (("Swin-T", 96), ("Swin-B", 128)):
        for stage in range(4):
            size, channels, heads = 56 >> stage, dim << stage, dim // 32 << stage
            name = f"{model} stage {stage + 1}"
            found += [Shape(f"{name} K={k}", size, channels, heads, k, attention=True) for k in (3, 5, 7)]
            found.append(Shape(f"{name} inside", size, channels, heads, 7, "inside", attention=True))
            found.append(Shape(f"{name} heads=C", size, channels, channels, 7))
            found.append(Shape(f"I-D-DW{name[4:]}", size, channels, 32, 7))
            elsa = f"ELSA-{name}"
            found += [Shape(f"{elsa} K={k}", size, channels, heads, k, factors=FACTORS) for k in (5, 7)]
            found.append(Shape(f"{elsa} inside", size, channels, heads, 7, "inside", factors=FACTORS))
            found += [Shape(f"Slide-{name} K={k}", size, channels, heads, k, slide=True) for k in (3, 5)]
    for stage in range(4):
        size, channels = 56 >> stage, 64 << stage
        found.append(Shape(f"RedNet stage {stage + 1}", size, channels, channels // 16, 7))
        found.append(Shape(f"DDF-ResNet stage {stage + 1}", size, channels, 1, 3, factors=("multiply",)))
        sasa = Shape(f"SASA-ResNet stage {stage + 1}", size, channels, 8, 7, attention=True)
        found.append(replace(sasa, axial=True))
        if stage:
            found.append(
                Shape(f"RedNet stage {stage + 1} strided", 2 * size, channels, channels // 16, 7, stride=2)
            )
            strided_ddf = Shape(f"DDF-ResNet stage {stage + 1} strided", 2 * size, channels, 1, 3, stride=2)
            found.append(replace(strided_ddf, factors=("multiply",)))
    found.append(Shape("DDF 2048 channels", 7, 2048, 1, 3, factors=("multiply",)))
    found += [Shape(f"DDF added, {channels} channels", 14, channels, 1, 3) for channels in (64, 2048)]
    return found


def launches(
    shape: Shape, dtype: torch.dtype, device: torch.device = META, batch: int = BATCH
) -> Iterator[Any]:
    """Launches of the sums and of the attentions at one shape.

    On the meta device for tensors without memory. On a real device, run each launch before taking the next:
    later launches read its outputs.
    """
    from ablate.kernels.neighborhood_attention import WIDEST
    from ablate.kernels.neighborhood_sums import triton as sums

    def drawn(*size: int) -> Tensor:
        if device == META:
            return torch.empty(size, dtype=dtype, device=device)
        return (torch.randn(size, device=device) / 2).to(dtype)

    out = strided(shape.size, shape.stride)
    map_size = batch, shape.size, shape.size, shape.channels
    values = drawn(*map_size)
    if shape.slide:
        yield from _slide_launches([values, *(drawn(*map_size) for _ in range(3))], shape)
        return
    outputs = drawn(batch, out, out, shape.channels)
    filters = drawn(batch, out, out, shape.heads, shape.kernel**2)
    table = drawn(batch, shape.channels, offsets_per_axis(shape.kernel, shape.border) ** 2)
    multiply, add = (table if name in shape.factors else None for name in FACTORS)
    neighborhood = Neighborhood(shape.kernel, 1, shape.border, shape.stride)
    yield sums.launch_aggregate(values, filters, multiply, add, neighborhood)[0]
    yield sums.launch_scores(outputs, values, multiply, None, None, shape.heads, neighborhood)[0]
    yield sums.launch_aggregate_transpose(
        outputs, filters, multiply, add, shape.size, shape.size, neighborhood
    )[0]
    if shape.attention and not shape.axial:  # attention that is not plain softmax: other norms, ghost head
        bias = drawn(shape.heads, offsets_per_axis(shape.kernel, shape.border) ** 2)
        for key_position in (None, table[:1]):
            given = outputs, values, None, key_position, bias
            yield sums.launch_scores(*given, shape.heads, neighborhood)[0]
    if shape.factors:
        yield sums.launch_static_grad(outputs, values, filters, neighborhood)[0]
    if shape.attention and shape.channels // shape.heads <= WIDEST[dtype]:
        yield from _attention_launches([values, outputs, *(drawn(*map_size) for _ in range(2))], shape)


def _attention_launches(maps: list[Tensor], shape: Shape) -> Iterator[Any]:
    """Four maps: the gradient of the output, query, key and value."""
    from ablate.kernels.neighborhood_attention import triton as attention
    from ablate.kernels.neighborhood_attention.inputs import Inputs

    offsets = offsets_per_axis(shape.kernel, shape.border)
    neighborhood = Neighborhood(shape.kernel, 1, shape.border)
    grad, query, key, value = maps
    bias = torch.zeros(shape.heads, offsets**2, device=query.device)
    axial = query.new_zeros(*query.shape[:3], shape.heads, 2 * offsets) if shape.axial else None
    inputs = Inputs(query, key, value, bias, axial)
    forward, out, rows = attention.launch_attention(inputs, neighborhood)
    yield forward
    queries, _, product, _ = attention.launch_query_gradient(grad, inputs, out, rows, neighborhood)
    yield queries
    for launch in (attention.launch_key_gradients, attention.launch_bias_gradient):
        yield launch(grad, inputs, rows, product, neighborhood)[0]


def _slide_launches(maps: list[Tensor], shape: Shape) -> Iterator[Any]:
    """Four maps: the gradient of the output, query, key and value."""
    from ablate.kernels.slide_attention.triton import filters, forward, keys, positions, queries

    width, taps = shape.channels // shape.heads, shape.kernel**2
    grad, query, key, value = maps
    mix, own = query.new_zeros(width, taps, taps), query.new_zeros(width, taps)
    table = query.new_zeros(shape.heads, taps)
    mixture = positions.Mixture.of(mix, own, table, shape.kernel, query.dtype)
    yield forward.launch_attention(query, key, value, mixture)[0]
    filled = [torch.empty_like(query) for _ in range(3)]
    of_queries, numbers, _ = queries.launch_query_gradient(grad, query, key, value, mixture, filled[0])
    yield of_queries
    yield keys.launch_key_gradients(grad, query, mixture, numbers, *filled[1:])
    yield filters.launch_filter_gradient(grad, query, key, value, mixture, numbers)[0]
