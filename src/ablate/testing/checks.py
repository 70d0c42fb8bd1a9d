"""The checks, which raise AssertionError with what is wrong, or SkippedError if they cannot be made."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from ablate import hosts, ops
from ablate.errors import UserError
from ablate.ops import costs
from ablate.testing.subject import Subject, drawn, learned, step

BATCH, OTHER = 4, 3  # images that a graph is traced with, and images that it is used with afterwards
HALF = (torch.bfloat16, torch.float16)
ROUNDINGS = 3  # times the error that rounding an operator's weights and input makes, which half precision may
PRODUCTS = {"aten::mm": "mm", "aten::addmm": "mm", "aten::bmm": "bmm", "aten::baddbmm": "bmm"}
COMPUTING = ("ablate::", "aten::convolution")
MARGIN, STEPS = 4, 3  # least positions at the border that are not compared; steps without a claimed property


class SkippedError(Exception):
    """A check that cannot be made, with the reason."""


def close(found: Tensor, expected: Tensor, what: str = "output") -> None:
    """Equal but for the rounding of float64."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, msg=lambda text: f"{what}: {text}")


def same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal bit for bit, under the same names."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), f"other bits: {name}"


def shape(subject: Subject) -> None:
    """(B, H, W, C) → (B, ⌈H/s⌉, ⌈W/s⌉, C), in the dtype and on the device of the input."""
    for training in (True, False):
        for dtype in (torch.float32, torch.float64):
            y = subject.build().to(dtype).train(training)(subject.image(dtype=dtype))
            assert isinstance(y, Tensor), f"the output is a {type(y).__name__}"
            assert y.shape == subject.shape(2), f"{tuple(y.shape)} instead of {subject.shape(2)}"
            assert y.dtype == dtype, f"{y.dtype} for an input of {dtype}"
            assert y.isfinite().all(), "the output has nan or inf"


def seed(subject: Subject) -> None:
    """Weights depend on the seed alone, and checking a configuration draws nothing."""
    one, same = (subject.build(seed=5).state_dict() for _ in range(2))
    same_bits(dict(same), dict(one))
    before = torch.get_rng_state()
    ops.check(subject.spec.defaults, ops.Slot(64, 2, (14, 14), subject.stride))
    assert torch.equal(torch.get_rng_state(), before), "checking a configuration draws random numbers"


def state(subject: Subject) -> None:
    """Another operator with the saved state gives the same bits, in training and in evaluation."""
    operator, other = subject.drawn(), subject.build(seed=6).double()
    file = io.BytesIO()
    torch.save(operator.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for training in (True, False):
        outputs = []
        for one in (other, operator):
            torch.manual_seed(9)  # of dropout
            outputs.append(one.train(training)(subject.image()))
        assert torch.equal(*outputs), f"other bits with training={training}"


def determinism(subject: Subject) -> None:
    """The same bits twice, gradients included; in evaluation whatever the random generator's state is."""
    operator, x = subject.drawn(torch.float32).eval(), subject.image(dtype=torch.float32)
    same_bits(step(operator, x, seed=12), step(operator, x, seed=11))


def gradients(subject: Subject) -> None:
    """Every parameter that learns has a part in the output."""
    operator = subject.drawn()
    x = subject.image().requires_grad_()
    named = learned(operator)
    found = torch.autograd.grad(operator(x).square().sum(), [x, *named.values()], allow_unused=True)
    without = [name for name, value in zip(["the input", *named], found, strict=True) if value is None]
    assert not without, f"no gradient: {', '.join(without)}; use requires_grad=False, or a buffer"
    broken = [
        name for name, value in zip(["the input", *named], found, strict=True) if not value.isfinite().all()
    ]
    assert not broken, f"nan or inf in the gradient of {', '.join(broken)}"


def gradcheck(subject: Subject) -> None:
    """Gradients are those of finite differences, in float64."""
    operator = subject.drawn()
    x = subject.image(batch=3).requires_grad_()
    named = learned(operator)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(operator, dict(zip(named, values, strict=True)), (x,))
        return found

    has_statistics = any(isinstance(part, _BatchNorm) for part in operator.modules())
    for training in (True, False) if has_statistics else (False,):
        operator.train(training)
        assert torch.autograd.gradcheck(call, (x, *named.values()), fast_mode=True), f"training={training}"


def images(subject: Subject) -> None:
    """In evaluation neither other images of the batch nor the order of the input in memory matter."""
    operator = subject.drawn().eval()
    x = subject.image()
    permuted = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    expected, found = step(operator, x), step(operator, permuted)
    for name, value in expected.items():
        close(found[name], value, f"{name}, of an input that is not contiguous")
    close(operator(x[1:]), expected["y"][1:], "an image without the others of its batch")


def half_precision(subject: Subject) -> None:
    """In bfloat16 and float16, and under autocast, as near to float64 as rounded weights and input allow.

    The measure is the root of the mean square. How much rounding changes is the operator's own: sharp
    attention changes by more than a convolution, and by more the more channels a logit sums over.
    """
    operator = subject.drawn().eval()
    x = subject.image()
    exact = operator(x)
    for dtype in HALF:
        rounded = copy.deepcopy(operator).to(dtype).double()(x.to(dtype).double())
        allowed = max(ROUNDINGS * _error(rounded, exact), torch.finfo(dtype).eps)
        found = copy.deepcopy(operator).to(dtype)(x.to(dtype))
        assert found.dtype == dtype, f"{found.dtype} for an input of {dtype}"
        single = copy.deepcopy(operator).float()
        with torch.autocast("cpu", dtype):
            mixed = single(x.float())
        for y, words in ((found, f"in {dtype}"), (mixed, f"under autocast in {dtype}")):
            error = _error(y.double(), exact)
            assert error <= allowed, (
                f"{words} {100 * error:.2f} % away from float64; rounding weights and input allows "
                f"{100 * allowed:.2f} %"
            )


def _error(found: Tensor, exact: Tensor) -> float:
    """Return the root mean square of an error, relative to that of the exact figures."""
    return ((found - exact).norm() / exact.norm()).item()


def autocast(subject: Subject) -> None:
    """Under autocast all that takes time is in its dtype, whatever the layer before returns."""
    x = subject.image(dtype=torch.float32)
    exact = _gradients(step(subject.build().train(), x))
    calls = []
    for dtype in (torch.float32, torch.bfloat16):
        operator = subject.build().train()
        with torch.autocast("cpu", torch.bfloat16), _Recorder() as recorder:
            found = step(operator, x.to(dtype))
        if recorder.calls:  # without products, the dtype may be that of the input
            assert found["y"].dtype == torch.bfloat16, f"{found['y'].dtype} under autocast in bfloat16"
        single = sorted({name for name, used in recorder.calls if used == torch.float32})
        assert not single, f"in float32 under autocast: {', '.join(single)}"
        calls.append(recorder.calls)
        error = _error(_gradients(found), exact)
        assert error <= 0.15, f"gradients differ from those of float32 by {100 * error:.0f} %"
    assert calls[0] == calls[1], "other operations for an input in bfloat16 than for one in float32"


def meta(subject: Subject) -> None:
    """Runs on the meta device, where multiply-accumulates are counted."""
    with torch.device("meta"):
        y = subject.build()(torch.empty(2, *subject.resolution, subject.dim))
    assert y.is_meta, "the output is not on the meta device"
    assert y.shape == subject.shape(2), f"{tuple(y.shape)} instead of {subject.shape(2)}"
    costs.macs(subject.build(), 1, *subject.resolution, subject.dim)


def equivariance(subject: Subject) -> None:
    """Away from borders the output moves with the input by the steps that the registration claims."""
    margin = max(MARGIN, subject.reach)
    height, width = 2 * margin + 7, 2 * margin + 8
    try:
        operator = drawn(replace(subject, resolution=(height, width)).build()).eval()
    except UserError as error:
        raise SkippedError(f"it cannot be built for {height}×{width} positions: {error.problem}") from error
    if subject.stride != 1:
        raise SkippedError("it is claimed of stride 1")
    whole, claimed = replace(subject, resolution=(height + 4, width + 4)).image(), subject.spec.equivariance

    def moves_alike(by: int) -> bool:
        here, there = (operator(whole[:, at : at + height, at : at + width]) for at in (0, by))
        assert here.shape[1:3] == (height, width), "the output has another shape than the input"
        here = here[:, margin + by : height - margin, margin + by : width - margin]
        there = there[:, margin : height - margin - by, margin : width - margin - by]
        return torch.allclose(here, there, rtol=1e-10, atol=1e-10)

    for by in (claimed, 2 * claimed) if claimed else ():
        assert moves_alike(by), f"registered with equivariance={claimed}, and does not move by {by} positions"
    for by in range(1, claimed or STEPS):
        assert not moves_alike(by), f"moves by {by} positions: register it with equivariance={by}"


def checkpointing(subject: Subject) -> None:
    """The same bits under activation checkpointing."""
    operator, x = subject.drawn(torch.float32).train(), subject.image(OTHER, torch.float32)
    plain = step(copy.deepcopy(operator), x)
    found = step(operator, x, lambda x: checkpoint(operator, x, use_reentrant=False))
    same_bits(found, plain)


def export(subject: Subject, dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)) -> None:
    """`torch.export` for every batch size; eager mode is what it was afterwards."""
    for dtype in dtypes:
        operator = subject.drawn(dtype).eval()
        batch = torch.export.Dim("batch")
        program = torch.export.export(operator, (subject.image(BATCH, dtype),), dynamic_shapes=({0: batch},))
        exported = program.module()
        for number in (OTHER, BATCH):
            x = subject.image(number, dtype)
            assert torch.equal(exported(x), operator(x)), f"other bits for {number} images"
        one = subject.image(1, dtype)  # for which PyTorch may choose another convolution
        torch.testing.assert_close(exported(one), operator(one))


def compiling(subject: Subject) -> None:
    """`torch.compile` as one graph for every batch size, forward and backward, to the same bits."""
    operator = subject.drawn(torch.float32).train()
    eager = copy.deepcopy(operator)
    compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")

    def call(x: Tensor) -> Any:
        torch._dynamo.mark_dynamic(x, 0)
        return compiled(x)

    try:
        for number in (BATCH, OTHER):
            x = subject.image(number, torch.float32)
            with torch._dynamo.config.patch(error_on_recompile=number == OTHER):
                found = step(operator, x, call)
            same_bits(found, step(eager, x))
            same_bits(dict(operator.named_buffers()), dict(eager.named_buffers()))
    finally:
        torch._dynamo.reset()


def empty_batch(subject: Subject) -> None:
    """No image at all: gradients of zeros, and no nan in a running statistic."""
    for dtype in (torch.float32, torch.float64):
        for training in (True, False):
            operator = subject.drawn(dtype).train(training)
            found = step(operator, subject.image(0, dtype))
            assert found.pop("y").shape == subject.shape(0), "another shape"
            assert found.pop("gradient of x").shape == subject.image(0).shape, "another shape of the gradient"
            for name, value in found.items():
                assert not value.any(), f"the gradient of {name} is not zero"
            broken = [name for name, buffer in operator.named_buffers() if not buffer.isfinite().all()]
            assert not broken, f"nan or inf in {', '.join(broken)}"


def in_its_host(subject: Subject) -> None:
    """One training step in the host that the registration names changes every parameter's gradient."""
    if subject.stride != 1:
        raise SkippedError("it is made once")
    words = dict(word.split("=", 1) for word in subject.spec.host.split())
    name = words.pop("host")
    more: dict[str, Any] = {
        key.removeprefix("host."): yaml.safe_load(value)
        for key, value in words.items()
        if key.startswith("host.")
    }
    torch.manual_seed(0)
    size = hosts.spec(name).image_size
    try:
        model = hosts.create(name, subject.name, num_classes=3, **more).train()
    except UserError as error:
        raise SkippedError(f"it cannot be built there: {error.problem}") from error
    channels = next(part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d))
    loss = model(torch.randn(2, channels, *size)).square().mean()
    loss.backward()
    assert loss.isfinite(), f"the loss is {loss.item()}"
    idle = [name for name, value in learned(model).items() if value.grad is None]
    assert not idle, f"no gradient: {', '.join(idle)}"


class _Recorder(TorchDispatchMode):
    """Calls of operations that take time, each with the dtype of its leading operand."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, torch.dtype]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name()
        if name in PRODUCTS or name.startswith(COMPUTING):
            self.calls.append((PRODUCTS.get(name, name), args[0].dtype))
        return func(*args, **(kwargs or {}))


def _gradients(found: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten().float() for name, value in found.items() if name != "y"])


CHECKS: dict[str, Callable[[Subject], None]] = {
    "shape": shape,
    "seed": seed,
    "state": state,
    "determinism": determinism,
    "gradients": gradients,
    "gradcheck": gradcheck,
    "images": images,
    "half precision": half_precision,
    "autocast": autocast,
    "meta": meta,
    "equivariance": equivariance,
    "checkpointing": checkpointing,
    "export": export,
    "compile": compiling,
    "empty batch": empty_batch,
    "in its host": in_its_host,
}
