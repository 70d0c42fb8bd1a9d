"""Step `kernels`: each Triton kernel apart, beside PyTorch's operators for the same maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ablate.bench import memory
from ablate.bench.acceptance.inputs import OnDevice, draw
from ablate.bench.acceptance.steps import Setting
from ablate.bench.ceiling import COPY
from ablate.bench.events import timed
from ablate.bench.launches import Shape, launches, shapes
from ablate.bench.library import window_attention
from ablate.bench.settings import KERNEL, STAGES, Stage
from ablate.bench.timing import Times
from ablate.kernels._triton.launch import capability_of

BATCH, REPETITIONS = 128, 20
FORMS = ("Swin-T stage {} K=7", "ELSA-Swin-T stage {} K=7", "Slide-Swin-T stage {} K=3")
OTHERS = ("Swin-T stage 1 inside", "I-D-DW-T stage 1", "RedNet stage 2", "DDF-ResNet stage 3")
ORDER = (1, 3, 2, 4)  # of the stages
COMPILED = (1, 3)  # stages at which flex_attention is compiled, which takes seconds for each
OPTIONAL = ("multiply", "add", "axial", "bias")  # operands without which a kernel is another
RADIUS = KERNEL // 2


@dataclass(frozen=True)
class Scale:
    """Batch, repetitions and the rate of a copy, with which traffic is compared."""

    dtype: torch.dtype
    batch: int
    repetitions: int
    rate: float  # bytes per second, read and written


@dataclass(frozen=True)
class Contender:
    """An operator of PyTorch: `build` returns its function of the named maps and of one table or weight."""

    name: str
    build: Callable[[], Callable[..., Tensor]]
    maps: tuple[str, ...]
    table: Mapping[str, tuple[int, ...]]


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """The copy and our kernels first, then the library; flex_attention, which must be compiled, last."""
    dtype = torch.float32 if setting.toy else torch.bfloat16
    batch, repetitions = (1, 1) if setting.toy else (BATCH, REPETITIONS)
    source = torch.zeros(2**20 if setting.toy else COPY["cuda"], dtype=torch.uint8, device=setting.device)
    copied = timed(partial(torch.empty_like(source).copy_, source), setting.device, repetitions)
    rate = 2 * source.numel() / copied.median
    yield {"name": "copy", "shape": f"{source.numel() >> 20} MiB", "bytes_per_second": rate, **_times(copied)}
    del source
    scale = Scale(dtype, batch, repetitions, rate)
    found = {shape.name: shape for shape in shapes()}
    stages = (4,) if setting.toy else ORDER
    names = [form.format(stage) for stage in stages for form in FORMS]
    for name in [*names, *(() if setting.toy else OTHERS)]:
        yield from _kernels(_sized(found[name], setting), scale, setting)
    for number in stages:
        for contender in contenders(_stage(number, setting)):
            yield from _library(contender, number, scale, setting)
    for number in stages if setting.toy else COMPILED:
        torch.compiler.reset()
        yield from _library(flex(_stage(number, setting), setting.device), number, scale, setting)


def _sized(shape: Shape, setting: Setting) -> Shape:
    """The shape, or one as small as the interpreter needs it."""
    return replace(shape, size=2, channels=16, heads=1, kernel=3) if setting.toy else shape


def _stage(number: int, setting: Setting) -> Stage:
    return Stage(KERNEL, 32, 1) if setting.toy else STAGES[number]


def _kernels(shape: Shape, scale: Scale, setting: Setting) -> Iterator[dict[str, Any]]:
    """Every kernel at one shape; `of_copy`: the share of the copy's rate that its bytes reach."""
    for launch in launches(shape, scale.dtype, setting.device, scale.batch):
        optional = [key for key in OPTIONAL if launch.arguments.get(key) is not None]
        name = " ".join([launch.kernel.__name__.removesuffix("_kernel"), *optional])
        if setting.knows(name, shape.name):
            launch.run()  # later launches read what it fills
            continue
        tensors = {id(x): x for x in launch.arguments.values() if isinstance(x, Tensor)}
        try:
            times = timed(launch.run, setting.device, scale.repetitions)
        except Exception as error:  # the other kernels are timed
            yield {"name": name, "shape": shape.name, "passed": False, "detail": _said(error)}
            continue
        moved = memory.size(tensors.values())
        options = {"options": launch.options(capability_of(setting.device))}
        yield _record(name, shape.name, times, moved, scale.rate) | options


def _library(contender: Contender, number: int, scale: Scale, setting: Setting) -> Iterator[dict[str, Any]]:
    """Time PyTorch's nearest operators at one stage; record an error where one fails."""
    shape = f"Swin-T stage {number}"
    names = {step: f"{contender.name}, {step}" for step in ("forward", "training")}
    if all(setting.knows(name, shape) for name in names.values()):
        return
    stage = _stage(number, setting)
    size = scale.batch, stage.size, stage.size, stage.channels
    try:
        sizes = {**dict.fromkeys(contender.maps, size), **contender.table}
        learned = draw(sizes, setting.device, scale.dtype)
        least = memory.size([*learned.values(), learned[contender.maps[0]]])
        function = contender.build()
        fixed = [x.detach() for x in learned.values()]  # flex_attention refuses others on a CPU
        passes = {
            "forward": (OnDevice(partial(function, *fixed), {}).forward, least),
            "training": (OnDevice(partial(function, *learned.values()), learned).training, 2 * least),
        }
        for step, (call, moved) in passes.items():
            times = timed(call, setting.device, scale.repetitions)
            yield _record(names.pop(step), shape, times, moved, scale.rate)
    except Exception as error:  # a limit of the library: the others are timed
        for name in names.values():
            yield {"name": name, "shape": shape, "error": _said(error)}


def contenders(stage: Stage) -> Iterator[Contender]:
    """Depthwise convolution in both memory formats, and attention in windows."""

    def depthwise(memory_format: torch.memory_format, values: Tensor, weight: Tensor) -> Tensor:
        images = values.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
        return F.conv2d(images, weight, padding=RADIUS, groups=stage.channels)

    weight = {"weight": (stage.channels, 1, KERNEL, KERNEL)}
    for label, form in (("channels last", torch.channels_last), ("contiguous", torch.contiguous_format)):
        build = partial(partial, depthwise, form)
        yield Contender(f"depthwise convolution, {label}", build, ("values",), weight)
    bias = {"bias": (stage.heads, (2 * KERNEL - 1) ** 2)}
    attention = partial(partial, window_attention, stage.heads, KERNEL)
    yield Contender("attention in windows", attention, ("query", "key", "value"), bias)


def flex(stage: Stage, device: torch.device) -> Contender:
    """Neighborhood attention by PyTorch's flex_attention."""
    bias = {"bias": (stage.heads, KERNEL**2)}
    return Contender("flex_attention", partial(flexible, stage, device), ("query", "key", "value"), bias)


def flexible(stage: Stage, device: torch.device) -> Callable[..., Tensor]:
    """Neighborhood attention by PyTorch's flex_attention, taps outside the map masked; compiled on a card.

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


def _record(name: str, shape: str, times: Times, moved: int, rate: float) -> dict[str, Any]:
    share = moved / times.median / rate
    return {"name": name, "shape": shape, **_times(times), "bytes": moved, "of_copy": round(share, 3)}


def _said(error: Exception) -> str:
    """The beginning of an error's message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _times(times: Times) -> dict[str, Any]:
    return {"seconds": times.median, "quartiles": list(times.quartiles), "samples": len(times.samples)}
