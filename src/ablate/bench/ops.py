"""`ablate bench ops`: every operator of the registry on one map, compiled kernels beside plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ablate import ops
from ablate.bench import report
from ablate.bench.agreement import TOLERANCES, fallen, judged
from ablate.bench.computation import PASSES, Computation, draw
from ablate.bench.progress import track
from ablate.bench.settings import Settings, Stage, chosen
from ablate.bench.timing import Times, interleave

BASELINES = ("lsa", "dwconv")
COLUMNS = (
    *("operator", "reference\n(ms)", "fast\n(ms)", "reference\n÷ fast"),
    *(f"fast\n÷ {name}" for name in BASELINES),
    "images/s",
)


@dataclass(frozen=True)
class Line:
    """One operator in one pass; `baselines`: seconds of `BASELINES` in the same run."""

    operator: str
    step: str
    batch: int
    differing: list[str]
    times: dict[str, Times]
    baselines: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Raw figures, in seconds."""
        head: dict[str, Any] = {"operator": self.operator, "pass": self.step}
        if self.differing:
            return {**head, "differing": self.differing}
        fast = self.times["fast"].median
        return {
            **head,
            "seconds": {name: times.as_json() for name, times in self.times.items()},
            "ratios": {name: fast / seconds for name, seconds in self.baselines.items()},
            "images_per_second": self.batch / fast,
        }

    def cells(self) -> tuple[str, ...]:
        """Cells of the columns in `COLUMNS`."""
        head = f"{self.operator}\n{self.step}"
        if self.differing:
            return head, "; ".join(self.differing)
        fast, reference = self.times["fast"], self.times["reference"]
        return (
            head,
            report.milliseconds(reference),
            report.milliseconds(fast),
            report.ratio(reference.median / fast.median),
            *(report.ratio(fast.median / seconds) for seconds in self.baselines.values()),
            f"{self.batch / fast.median:.0f}",
        )


def run(names: list[str], stage: Stage, settings: Settings) -> report.Report:
    """Time the named operators (all where none is), and the baselines with them, on one map.

    Raises:
        UserError: an unknown operator; names the nearest one.
    """
    asked = chosen("operator", names, ops.names())
    entries = [*BASELINES, *(name for name in asked if name not in BASELINES)]
    found, differing = {}, {}
    for name in track(entries, "comparing values"):
        found[name] = _contenders(name, stage, settings)
        differing[name] = _differing(name, stage, settings, found[name])
    lines = []
    for step in PASSES:
        calls = {
            (name, contender): computation.passes()[step]
            for name in entries
            if not differing[name]
            for contender, computation in found[name].items()
        }
        times = interleave(calls, settings.repetitions, "timing operators: " + step)
        baselines = {name: times[name, "fast"].median for name in BASELINES if not differing[name]}
        for name in entries:
            own = {contender: times[name, contender] for contender in found[name] if not differing[name]}
            lines.append(Line(name, step, settings.batch, differing[name], own, baselines))
    lines.sort(key=lambda line: entries.index(line.operator))
    return report.Report("ops", COLUMNS, lines, notes(stage, settings), settings)


def notes(stage: Stage, settings: Settings) -> list[str]:
    """Notes below the table."""
    return [
        f"{settings.batch} maps of {stage.size}×{stage.size}, {stage.channels} channels, {stage.heads} "
        "heads; median [quartiles]; training is forward and backward; images/s of fast. reference: "
        "infra.kernels=reference.",
        "Every line's output and gradients were the same by both, or at most twice as far from float64 (a "
        "ReLU that rounding turns changes gradients), or the line says what differs.",
    ]


def _differing(name: str, stage: Stage, settings: Settings, contenders: dict[str, Computation]) -> list[str]:
    def exact() -> dict[str, Tensor]:
        return _contenders(name, stage, replace(settings, dtype=torch.float64))["reference"].values()

    fast, reference = (contenders[key].values() for key in ("fast", "reference"))
    differing = judged(fast, reference, exact, TOLERANCES[settings.dtype])
    return differing + fallen(contenders["fast"].fallbacks)


def _contenders(name: str, stage: Stage, settings: Settings) -> dict[str, Computation]:
    torch.manual_seed(0)
    module = ops.create(name, stage.channels, heads=stage.heads, resolution=(stage.size, stage.size))
    module = module.to(settings.device, settings.dtype).train()
    shape = (settings.batch, stage.size, stage.size, stage.channels)
    learned = draw({"the input": shape}, settings.device, settings.dtype)
    call = partial(module, learned["the input"])
    learned |= parameters(module)
    return {
        key: Computation(call, learned, how) for key, how in (("reference", "reference"), ("fast", "auto"))
    }


def parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}
