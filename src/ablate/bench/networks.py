"""`ablate bench models --time`: a training step of networks beside timm's Swin-T."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import ablate.models
from ablate import hosts, ops
from ablate.bench import report
from ablate.bench.agreement import fallen, judged
from ablate.bench.computation import Computation
from ablate.bench.ops import parameters
from ablate.bench.profiling import shares
from ablate.bench.progress import track
from ablate.bench.settings import Settings, chosen
from ablate.bench.timing import Times, interleave
from ablate.errors import UserError
from ablate.ops import costs

HOST = "swin_tiny"
HYBRIDS = ("elsa_swin_tiny", "na_swin_tiny")
TARGETS = dict.fromkeys(HYBRIDS, 1.35)
TARGET = 2.0  # times the baseline, for every other
PIXELS = 224
MOST_MACS = 1.5  # times those of the baseline, for what nobody named
IMAGES = 2  # on which values are compared
TOLERANCE = 1e-2  # of gradients through a whole network in float32
REASONS = 3  # operations that are named where a target is missed
COLUMNS = (
    *("network", "step\n(s)", "timm's Swin-T\n(s)", "ratio", "MACs\n÷ Swin-T's", "target"),
    "met, or where the time goes",
)


@dataclass(frozen=True)
class Line:
    """One network beside the baseline, in turns.

    Attributes:
        macs: multiply-accumulates of an image, over the baseline's.
        shares: of the time of a step that misses the target, by operation; the largest first.
    """

    network: str
    target: float
    differing: list[str]
    times: dict[str, Times]
    macs: float
    shares: dict[str, float]

    @property
    def ratio(self) -> float:
        """Ratio of the medians."""
        return self.times["step"].median / self.times["baseline"].median

    def as_json(self) -> dict[str, Any]:
        """Raw figures, in seconds."""
        if self.differing:
            return {"network": self.network, "differing": self.differing}
        return {
            "network": self.network,
            "seconds": {name: times.as_json() for name, times in self.times.items()},
            "ratio": self.ratio,
            "macs_ratio": self.macs,
            "target": self.target,
            "met": self.ratio <= self.target,
            "shares": self.shares,
        }

    def cells(self) -> tuple[str, ...]:
        """Cells of the columns in `COLUMNS`."""
        if self.differing:
            return self.network, "; ".join(self.differing)
        return (
            self.network,
            report.seconds(self.times["step"]),
            report.seconds(self.times["baseline"]),
            report.ratio(self.ratio),
            report.ratio(self.macs),
            f"{self.target:.2f}",
            "\n".join(f"{share:.0%} {name}" for name, share in self.shares.items()) or "yes",
        )


def catalogue() -> dict[str, Callable[[], nn.Module]]:
    """Name → what builds it: two hybrids, and the host with each operator under the operator's name."""
    found: dict[str, Callable[[], nn.Module]] = {}
    for name in HYBRIDS:
        found[name] = ablate.models.CATALOGUE[name].build
    for name in ops.names():
        found[name] = partial(hosts.create, HOST, name)
    return found


def run(names: list[str], settings: Settings) -> report.Report:
    """Time the named networks (all where none is); those that the host refuses are listed with the reason.

    Raises:
        UserError: an unknown name; names the nearest one.
    """
    known = catalogue()
    asked = chosen("network", names, list(known))
    baseline = _drawn(partial(hosts.create, HOST, None), settings)
    lines, refused = [], {}
    for name in track(asked, "timing networks"):
        try:
            if not names:
                _refuse_the_heavy(known[name])
            lines.append(_line(name, known[name], baseline, settings))
        except UserError as error:
            refused[name] = str(error.problem)
    return report.Report("models", COLUMNS, lines, notes(settings), settings, refused=refused)


def notes(settings: Settings) -> list[str]:
    """Notes below the table."""
    return [
        f"Forward and backward of {settings.batch} images of {PIXELS}×{PIXELS}, without optimiser; median "
        f"[quartiles]. Operators' names mean {HOST} with that operator in every slot. Each network took "
        "turns with the baseline, timm's swin_tiny_patch4_window7_224.",
        f"Output and gradients of {min(IMAGES, settings.batch)} images were the same with "
        "infra.kernels=reference, or at most twice as far from float64 (a ReLU that rounding turns changes "
        "single gradients), or the line says what differs.",
        "Where a target is missed, the operations that take most of a profiled step are named; what "
        "their MACs do not explain is traffic: maps that they write and read again.",
    ]


def _line(name: str, build: Callable[[], nn.Module], baseline: nn.Module, settings: Settings) -> Line:
    model = _drawn(build, settings)
    few = min(IMAGES, settings.batch)
    quick = _step(model, few, settings)
    fast, reference = quick.values(), _step(model, few, settings, "reference").values()

    def exact() -> dict[str, Tensor]:
        doubled = copy.deepcopy(model).double()
        return _step(doubled, few, replace(settings, dtype=torch.float64)).values()

    differing = judged(fast, reference, exact, TOLERANCE) + fallen(quick.fallbacks)
    del fast, reference
    steps = {key: _step(x, settings.batch, settings) for key, x in (("step", model), ("baseline", baseline))}
    calls = {key: step.training for key, step in steps.items()}
    times = {} if differing else interleave(calls, settings.repetitions)
    line = Line(name, TARGETS.get(name, TARGET), differing, times, _macs_ratio(build), {})
    if differing or line.ratio <= line.target:
        return line
    return replace(line, shares=shares(calls["step"], settings.device, REASONS))


def _macs_ratio(build: Callable[[], nn.Module]) -> float:
    """Multiply-accumulates for one image over those of the baseline; draws no weight."""
    with torch.device("meta"):
        mine, theirs = (costs.macs(x, 1, 3, PIXELS, PIXELS) for x in (build(), hosts.create(HOST, None)))
    return mine / theirs


def _refuse_the_heavy(build: Callable[[], nn.Module]) -> None:
    """Attention over the whole of a large map needs minutes for a step, and more memory than most have.

    Raises:
        UserError: more than `MOST_MACS` times the multiply-accumulates of the baseline.
    """
    if (ratio := _macs_ratio(build)) > MOST_MACS:
        raise UserError(f"timed only when it is named: {ratio:.1f} times the baseline's multiply-accumulates")


def _drawn(build: Callable[[], nn.Module], settings: Settings) -> nn.Module:
    torch.manual_seed(0)
    return build().to(settings.device, settings.dtype).train()


def _step(model: nn.Module, batch: int, settings: Settings, implementation: str = "auto") -> Computation:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, PIXELS, PIXELS, generator=generator).to(settings.device, settings.dtype)

    def call() -> Tensor:
        torch.manual_seed(1)  # the same paths are dropped
        return model(images)

    return Computation(call, parameters(model), implementation)
