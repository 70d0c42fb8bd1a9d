"""Step `kernels`: each Triton kernel apart, and what PyTorch has for the same maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.bench import memory
from ablate.bench.acceptance.steps import Setting
from ablate.bench.ceiling import COPY
from ablate.bench.computation import Computation, draw
from ablate.bench.events import timed
from ablate.bench.launches import Shape, launches, shapes
from ablate.bench.library import window_attention
from ablate.bench.settings import KERNEL, STAGES, Stage
from ablate.bench.timing import Times

BATCH, REPETITIONS = 128, 20
FORMS = ("Swin-T stage {} K=7", "ELSA-Swin-T stage {} K=7", "Slide-Swin-T stage {} K=3")
OTHERS = ("Swin-T stage 1 inside", "I-D-DW-T stage 1", "RedNet stage 2", "DDF-ResNet stage 3")
OPTIONAL = ("multiply", "add", "axial", "bias")  # operands without which a kernel is another
RADIUS = KERNEL // 2


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """The copy first, then stage by stage, the library beside the kernels; last what fewer networks have."""
    dtype = torch.float32 if setting.toy else torch.bfloat16
    batch, repetitions = (1, 1) if setting.toy else (BATCH, REPETITIONS)
    source = torch.zeros(2**20 if setting.toy else COPY["cuda"], dtype=torch.uint8, device=setting.device)
    copied = timed(partial(torch.empty_like(source).copy_, source), setting.device, repetitions)
    rate = 2 * source.numel() / copied.median
    yield {"name": "copy", "shape": f"{source.numel() >> 20} MiB", "bytes_per_second": rate, **_times(copied)}
    del source
    found = {shape.name: shape for shape in shapes()}
    for stage in (4,) if setting.toy else (1, 3, 2, 4):
        for form in FORMS:
            shape = _sized(found[form.format(stage)], setting)
            yield from _kernels(shape, dtype, batch, repetitions, rate, setting)
        yield from _library(stage, dtype, batch, repetitions, rate, setting)
    for name in () if setting.toy else OTHERS:
        yield from _kernels(found[name], dtype, batch, repetitions, rate, setting)


def _sized(shape: Shape, setting: Setting) -> Shape:
    """The shape, or one as small as the interpreter needs it."""
    return replace(shape, size=2, channels=16, heads=1, kernel=3) if setting.toy else shape


def _kernels(
    shape: Shape, dtype: torch.dtype, batch: int, repetitions: int, rate: float, setting: Setting
) -> Iterator[dict[str, Any]]:
    """Every kernel at one shape; `of_copy`: the share of the copy's rate that its bytes reach."""
    for launch in launches(shape, dtype, setting.device, batch):
        tensors = {id(x): x for x in launch.arguments.values() if isinstance(x, Tensor)}
        optional = [key for key in OPTIONAL if launch.arguments.get(key) is not None]
        kernel = launch.kernel.__name__.removesuffix("_kernel")
        yield _line(
            " ".join([kernel, *optional]),
            shape.name,
            timed(launch.run, setting.device, repetitions),
            memory.size(tensors.values()),
            rate,
            registers=launch.registers,
            warps=launch.warps,
        )


def _library(
    number: int, dtype: torch.dtype, batch: int, repetitions: int, rate: float, setting: Setting
) -> Iterator[dict[str, Any]]:
    """What PyTorch has for the maps of one stage; a line without figures where it refuses."""
    stage = Stage(KERNEL, 32, 1) if setting.toy else STAGES[number]
    shape = f"Swin-T stage {number}"
    for name, call, names in _contenders(stage, setting.device):
        size = batch, stage.size, stage.size, stage.channels
        learned = draw(dict.fromkeys(names, size) | _tables(name, stage), setting.device, dtype)
        computation = Computation(partial(call, *learned.values()), learned)
        least = memory.size(learned.values()) + memory.size([next(iter(learned.values()))])
        for step, moved in (("forward", least), ("training", 2 * least)):
            try:
                times = timed(computation.passes()[step], setting.device, repetitions)
            except Exception as error:  # a library's limits: said, and the others are timed
                said = " ".join(str(error).split())[:200]
                yield {"name": f"{name}, {step}", "shape": shape, "detail": f"{type(error).__name__}: {said}"}
                continue
            yield _line(f"{name}, {step}", shape, times, moved, rate)


def _contenders(
    stage: Stage, device: torch.device
) -> Iterator[tuple[str, Callable[..., Tensor], tuple[str, ...]]]:
    """Name, function and the maps that it takes; a table or weight follows the maps."""

    def depthwise(memory_format: torch.memory_format, values: Tensor, weight: Tensor) -> Tensor:
        images = values.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
        return F.conv2d(images, weight, padding=RADIUS, groups=stage.channels)

    yield "depthwise convolution, channels last", partial(depthwise, torch.channels_last), ("values",)
    yield "depthwise convolution, contiguous", partial(depthwise, torch.contiguous_format), ("values",)
    attended = ("query", "key", "value")
    yield "attention in windows", partial(window_attention, stage.heads, KERNEL), attended
    yield "flex_attention", flexible(stage, device), attended


def _tables(name: str, stage: Stage) -> dict[str, tuple[int, ...]]:
    if name.startswith("depthwise"):
        return {"weight": (stage.channels, 1, KERNEL, KERNEL)}
    return {"bias": (stage.heads, (2 * KERNEL - 1) ** 2 if name == "attention in windows" else KERNEL**2)}


def flexible(stage: Stage, device: torch.device) -> Callable[..., Tensor]:
    """Neighbourhood attention by PyTorch's flex_attention, taps outside the map masked; compiled on a card.

    Its bias is read by `score_mod`, and its gradient adds up with atomics: other bits at every call.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compute = torch.compile(flex_attention, dynamic=False) if device.type == "cuda" else flex_attention
    width = stage.size

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        down, across = key // width - query // width, key % width - query % width
        return (down.abs() <= RADIUS) & (across.abs() <= RADIUS)

    block_mask = create_block_mask(near, None, None, width**2, width**2, device=str(device))

    def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        def biased(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            down, across = key // width - query // width, key % width - query % width
            offset = (down.clamp(-RADIUS, RADIUS) + RADIUS) * KERNEL + across.clamp(-RADIUS, RADIUS) + RADIUS
            return score + bias[head, offset]

        query, key, value = (
            x.flatten(1, 2).unflatten(-1, (stage.heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        y = compute(query, key, value, score_mod=biased, block_mask=block_mask, scale=1.0)
        return y.transpose(1, 2).flatten(2).unflatten(1, (width, width))

    return attend


def _line(name: str, shape: str, times: Times, moved: int, rate: float, **more: Any) -> dict[str, Any]:
    share = moved / times.median / rate
    return {"name": name, "shape": shape, **_times(times), "bytes": moved, "of_copy": round(share, 3), **more}


def _times(times: Times) -> dict[str, Any]:
    return {"seconds": times.median, "quartiles": list(times.quartiles), "samples": len(times.samples)}
