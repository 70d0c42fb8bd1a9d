"""`ablate bench kernels`: each kernel beside how authors write it and the library's nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from ablate.bench import memory, report
from ablate.bench.agreement import disagreements, fallen
from ablate.bench.cases import CASES, Case, Shapes
from ablate.bench.ceiling import Ceiling, measure
from ablate.bench.computation import PASSES, Computation, draw, flops
from ablate.bench.progress import track
from ablate.bench.settings import KERNEL, Settings, Stage, chosen
from ablate.bench.timing import Times, interleave

MEMORY_TARGET = 1.1  # of inputs, outputs and gradients
IMAGES = 2  # on which values are compared where the unfold form is not timed
COLUMNS = (
    *("kernel", "unfold\n(ms)", "fast\n(ms)", "nearest\n(ms)", "unfold\n÷ fast", "fast\n÷ nearest"),
    *("GFLOP/s\n(of ceiling)", "extra MB\n(peak ÷ least)"),
)


@dataclass(frozen=True)
class Line:
    """One kernel at one stage in one pass.

    Attributes:
        nearest: what it is compared with.
        differing: reasons why nothing is timed: values that do not agree, kernels that fell back.
        times: by contender; none where there is such a reason.
        flops: of the pass, as the kernels' formulas count.
        least_seconds: what the ceiling allows.
        inputs: bytes; `least`: of output and gradients; `extra`: at the peak, beyond the inputs.
    """

    kernel: str
    stage: int
    step: str
    nearest: str
    differing: list[str]
    times: dict[str, Times]
    flops: int
    least_seconds: float
    inputs: int
    least: int
    extra: int

    @property
    def memory(self) -> float:
        """The peak as a multiple of inputs, output and gradients."""
        return (self.inputs + self.extra) / (self.inputs + self.least)

    def as_json(self) -> dict[str, Any]:
        """Raw figures: seconds, FLOPs, bytes."""
        head = {"kernel": self.kernel, "stage": self.stage, "pass": self.step}
        if self.differing:
            return {**head, "differing": self.differing}
        fast = self.times["fast"].median
        return {
            **head,
            "seconds": {name: times.as_json() for name, times in self.times.items()},
            "nearest": self.nearest,
            "flops": self.flops,
            "share_of_ceiling": self.least_seconds / fast,
            "memory": {"inputs": self.inputs, "least": self.least, "extra": self.extra},
            "memory_target_met": self.memory <= MEMORY_TARGET,
        }

    def cells(self) -> tuple[str, ...]:
        """Cells of the columns in `COLUMNS`."""
        head = f"{self.kernel}\nstage {self.stage}, {self.step}"
        if self.differing:
            return head, "; ".join(self.differing)
        fast, nearest = self.times["fast"].median, self.times["nearest"].median
        unfolded = self.times.get("unfold")
        return (
            head,
            report.milliseconds(unfolded),
            report.milliseconds(self.times["fast"]),
            report.milliseconds(self.times["nearest"]),
            report.ratio(None if unfolded is None else unfolded.median / fast),
            report.ratio(fast / nearest),
            f"{self.flops / fast / 1e9:.1f}\n({100 * self.least_seconds / fast:.0f} %)",
            f"{self.extra / 1e6:.1f}\n({report.ratio(self.memory)})",
        )


def run(
    names: list[str], stages: dict[int, Stage], settings: Settings, unfolds: bool = True
) -> report.Report:
    """Time the named kernels (all where none is) at these stages, and the ceiling before them.

    Raises:
        UserError: an unknown kernel; names the nearest one.
    """
    asked = [(name, number) for name in chosen("kernel", names, list(CASES)) for number in stages]
    ceiling = measure(settings.device, settings.dtype)
    found = [
        line
        for name, number in track(asked, "timing kernels")
        for line in lines(name, number, stages[number], settings, ceiling, unfolds)
    ]
    return report.Report("kernels", COLUMNS, found, notes(settings), settings, ceiling)


def lines(
    name: str, number: int, stage: Stage, settings: Settings, ceiling: Ceiling, unfolds: bool
) -> Iterator[Line]:
    """Both passes of one kernel at one stage."""
    case = CASES[name]
    contenders = _contenders(case, stage, settings)
    fast = contenders["fast"]
    counted = flops(partial(case.fast, stage.heads, KERNEL), fast.learned)
    if unfolds:
        differing = disagreements(fast.values(), contenders["unfold"].values()) + fallen(fast.fallbacks)
    else:
        del contenders["unfold"]
        few = _contenders(case, stage, settings, min(settings.batch, IMAGES))
        differing = disagreements(few["fast"].values(), few["unfold"].values())
        differing += fallen(few["fast"].fallbacks)
    tensors = memory.size(fast.learned.values())
    output = memory.size([fast.direction])
    for step in PASSES:
        training = step == "training"
        least = output + tensors * training
        inputs = tensors + output * training  # a training step is given the gradient of its output
        calls = {key: contender.passes()[step] for key, contender in contenders.items()}
        moved = inputs + least + tensors * training  # which the backward pass reads once more
        yield Line(
            kernel=name,
            stage=number,
            step=step,
            nearest=case.nearest_name,
            differing=differing,
            times={} if differing else interleave(calls, settings.repetitions),
            flops=counted[step],
            least_seconds=ceiling.floor(counted[step], moved),
            inputs=inputs,
            least=least,
            extra=0 if differing else memory.peak(calls["fast"], settings.device),
        )


def notes(settings: Settings) -> list[str]:
    """Notes below the table."""
    return [
        f"K = {KERNEL}, border zero, batch {settings.batch}; median [quartiles]; training is forward and "
        "backward. unfold: as authors write it. nearest in PyTorch: of aggregate, depthwise convolution of "
        "the same K; of scores and attention, those of windows of K×K, with their partition.",
        "of ceiling: the time that arithmetic at the rate of a large matrix product, or traffic at that of "
        "a large copy, takes at least, over the time measured. extra: PyTorch's allocations at the peak "
        f"beyond the inputs; least: inputs, output and gradients (target: peak ÷ least ≤ {MEMORY_TARGET}).",
        "Every line's output and gradients agreed with the unfold form's (on two images where that is not "
        "timed), or the line says what differs.",
    ]


def _contenders(
    case: Case, stage: Stage, settings: Settings, batch: int | None = None
) -> dict[str, Computation]:
    def build(call: Callable[..., Tensor], shapes: Shapes) -> Computation:
        tensors = draw(shapes, settings.device, settings.dtype)
        return Computation(partial(call, stage.heads, KERNEL, *tensors.values()), tensors)

    batch = batch or settings.batch
    return {
        "unfold": build(case.unfold, case.shapes(stage, batch)),
        "fast": build(case.fast, case.shapes(stage, batch)),
        "nearest": build(case.nearest, case.nearest_shapes(stage, batch)),
    }
