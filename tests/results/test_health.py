"""Each check of a study passes where nothing is wrong, and notices the fault that it is for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ablate.results import health
from ablate.results.report import examined, report
from ablate.store.files import write_text
from ablate.store.folder import FAILED, RunFolder
from ablate.store.manifest import Manifest

SEEDS = range(6)
NAMES = ("Runs", "Code", "Convergence", "Seeds", "Equal variance", "Baseline")
Figures = dict[str, dict[int, object]]


def figures(**spread: float) -> Figures:
    """Accuracies of three conditions about 80 %, normal quantiles apart; the wider the larger its spread."""
    steps = np.array([-1.2, -0.6, -0.2, 0.2, 0.6, 1.2])
    orders = {"lsa": steps, "elsa": steps[::-1], "dwconv": np.roll(steps, 2)}
    return {
        name: {seed: float(80 + spread.get(name, 0.2) * order[seed]) for seed in SEEDS}
        for name, order in orders.items()
    }


def states(tmp_path: Path, mixed: int = 0, unknown: int = 0) -> dict[str, str]:
    found = health.checks(examined(tmp_path, ["quick"]), mixed=mixed, unknown=unknown)
    assert tuple(check.name for check in found) == NAMES
    return {check.name: check.state for check in found}


def flatten(tmp_path: Path, manifest: Manifest) -> None:
    """Learning curves that end flat."""
    for run in manifest.runs:
        folder = RunFolder(tmp_path / run.signature)
        lines = [
            f'{{"epoch": {epoch}, "train_loss": {2 / epoch}, "validation_top1": {min(60 + 4 * epoch, 80)}}}\n'
            for epoch in range(1, 21)
        ]
        write_text(folder.metrics_path, "".join(lines))


def test_a_sound_study_passes_all(fabricate: Callable[..., Manifest], tmp_path: Path) -> None:
    flatten(tmp_path, fabricate(figures(), margin=0.5))
    assert states(tmp_path) == dict.fromkeys(NAMES, health.PASS)
    report(tmp_path, "quick", mixed=True)
    page = (tmp_path / "studies" / "quick" / "report" / "index.html").read_text()
    assert page.count('<li class="pass">') == 5 and page.count('<li class="warn">') == 1  # code: not recorded


@pytest.mark.parametrize(
    ("name", "expected", "change"),
    [
        ("Runs", health.WARN, {"elsa": {**figures()["elsa"], 5: (FAILED, "out of memory")}}),
        ("Runs", health.FAIL, {name: dict.fromkeys(SEEDS) for name in figures()}),
        ("Seeds", health.FAIL, {name: {0: 80.0} for name in figures()}),
        ("Seeds", health.WARN, figures(elsa=3.0)),
        ("Equal variance", health.WARN, figures(elsa=9.0)),
        ("Baseline", health.WARN, figures(lsa=3.0)),
    ],
)
def test_a_fault_is_noticed(
    fabricate: Callable[..., Manifest], tmp_path: Path, name: str, expected: str, change: Figures
) -> None:
    fabricate({**figures(), **change}, margin=0.5)
    assert states(tmp_path)[name] == expected


def test_curves_that_still_rise_or_never_learned_are_noticed(
    fabricate: Callable[..., Manifest], tmp_path: Path
) -> None:
    manifest = fabricate(figures(), margin=0.01)
    assert states(tmp_path)["Convergence"] == health.WARN  # the fabricated curves rise to the end
    folder = RunFolder(tmp_path / manifest.runs[0].signature)
    write_text(
        folder.metrics_path,
        "".join(
            f'{{"epoch": {epoch}, "train_loss": 2.3, "validation_top1": 10}}\n' for epoch in range(1, 21)
        ),
    )
    found = states(tmp_path)
    assert found["Convergence"] == found["Baseline"] == health.FAIL


def test_code_is_checked(fabricate: Callable[..., Manifest], tmp_path: Path) -> None:
    fabricate(figures())
    assert states(tmp_path, mixed=1)["Code"] == health.FAIL
    assert states(tmp_path, unknown=3)["Code"] == health.WARN
