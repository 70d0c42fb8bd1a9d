"""Run folders as tidy frames: one row per run, and one row per epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.commands import command
from ablate.errors import UserError
from ablate.results.conditions import UNSET, labels
from ablate.store import code
from ablate.store.files import write_text
from ablate.store.folder import DAMAGED, FAILED, FINISHED, RUNNING, RunFolder
from ablate.store.manifest import Manifest, PlannedRun, load
from ablate.store.metrics import DEFAULT, LOSS, of_columns, of_task

MOST_NAMED = 20  # runs in a command that is printed
MISSING = "missing"  # planned, but without a folder on disk

IDENTITY = ("study", "condition")
RUN = ("seed", "signature", "pair_key", "state", "error")
PROGRESS = ("epoch", "epochs", "attempt", "started", "finished")
FIGURES = (
    "best_epoch",
    "parameters",
    "macs",
    "throughput",
    "peak_memory_bytes",
    "train_seconds",
)
AXES = {  # column: its place in the configuration
    "operator": "op.name",
    "heads": "op.channel.heads",
    "ghost_lambda": "op.channel.ghost_lambda",
    "ghost_gamma": "op.channel.ghost_gamma",
    "value": "op.channel.value",
    "output": "op.channel.output",
    "weights": "op.weights.name",
    "norm": "op.norm.name",
    "region": "op.region.name",
}
FIXED = {"host": "host.name", "data": "data.name", "recipe": "recipe.name"}
ENVIRONMENT = {  # column: its place in environment.json
    "commit": "commit",
    "dirty": "dirty",
    "device": "hardware.device",
    "torch": "versions.torch",
}
INTEGERS = ("epoch", "epochs", "attempt", "best_epoch", "parameters", "macs", "peak_memory_bytes")


def collect(runs_dir: Path, study: str) -> pd.DataFrame:
    """All runs that a study planned, one row each, in the order of its manifest.

    Runs without figures are rows too: `state` is one of the states of a run folder, `missing` where
    there is no folder, or `damaged`, with the file and what is wrong with it as the error. The columns are
    the study and the condition, one for each factor, the status (`epoch` counts those done), the figures of
    result.json (accuracies in percent, throughput in training images per second), the operator's place on
    the axes, what a study holds fixed, and the environment. `host` is the network; the machine is
    `hostname`. A study that has set a margin has it in two more columns, for records.

    Raises:
        UserError: there is no such study.
    """
    return collect_planned(runs_dir, load(runs_dir, study))


def collect_planned(runs_dir: Path, manifest: Manifest) -> pd.DataFrame:
    """The runs of a manifest, as `collect` returns those of a study."""
    rows = [
        _row(runs_dir, manifest, run, condition)
        for run, condition in zip(manifest.runs, labels(manifest), strict=True)
    ]
    frame = pd.DataFrame(rows, columns=_columns(manifest, rows))
    for column in FIGURES:
        frame[column] = pd.to_numeric(frame[column], errors="coerce")
    for column in INTEGERS:
        frame[column] = pd.to_numeric(frame[column], errors="coerce").round().astype("Int64")
    if manifest.margin is not None:  # a record is read from these rows alone
        frame = frame.assign(margin=manifest.margin, margin_after=manifest.margin_after)
    return frame


def mixed_code(runs_dir: Path, runs: pd.DataFrame) -> dict[str, list[list[str]]]:
    """Return modules of which finished runs have different texts, and the signatures of each text's runs.

    A run that was computed before code was recorded fits all others.
    """
    finished = runs.loc[runs["state"] == FINISHED, "signature"]
    records = {signature: RunFolder(runs_dir / signature).environment() for signature in finished}
    return code.differing({signature: record for signature, record in records.items() if record is not None})


def refuse_mixed_code(runs_dir: Path, runs: pd.DataFrame, study: str | Sequence[str]) -> None:
    """Refuse to compare runs of a study, or of several, that were computed by different code.

    Raises:
        UserError: names the first module with runs of each of its texts.
    """
    studies = [study] if isinstance(study, str) else study
    found = mixed_code(runs_dir, runs)
    for name, groups in found.items():
        parts = [_some(group) for group in groups]
        more = f" (and {len(found) - 1} more modules)" if len(found) > 1 else ""
        which = ["--stale"]
        if name.startswith((code.DATA, code.SIZES, code.VERSION)):  # they may not be known here
            earlier = [signature for group in _earlier(groups, runs_dir) for signature in group]
            which = [word for signature in earlier[:MOST_NAMED] for word in ("--run", signature)]
        anew = " and ".join(f"`{command('retry', one, *which, runs_dir=runs_dir)}`" for one in studies)
        raise UserError(
            f"runs of {' and '.join(studies)} were computed by different code: {name}{more} is one text in "
            f"{' and another in '.join(parts)}",
            f"{anew} computes them anew with today's code; `ablate diff RUN RUN` shows two runs; "
            "--mixed-code compares all the same",
        )


def _earlier(groups: Sequence[Sequence[str]], runs_dir: Path) -> list[Sequence[str]]:
    """Return the groups without the run that finished last."""

    def finished(signature: str) -> float:
        path = RunFolder(runs_dir / signature).result_path
        return path.stat().st_mtime if path.exists() else 0.0

    last = max((signature for group in groups for signature in group), key=finished)
    return [group for group in groups if last not in group]


def _some(runs: Sequence[str]) -> str:
    return f"run {runs[0]}" if len(runs) == 1 else f"{len(runs)} runs such as {runs[0]}"


def collect_metrics(runs_dir: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """The training records of collected runs, one row an epoch.

    An epoch that was trained again after an interruption appears once, as it was last. The
    columns are those of metrics.jsonl, speed.jsonl and callbacks.jsonl beside condition, seed, signature and
    state.
    """
    keys = ["condition", "seed", "signature", "state"]
    rows = []
    for run in runs[keys].to_dict("records"):
        folder = RunFolder(runs_dir / run["signature"])
        speed = {line.get("epoch"): line for line in folder.speed()}
        more = {line.get("epoch"): line for line in folder.callbacks()}
        rows += [
            {**run, **line, **speed.get(line["epoch"], {}), **more.get(line["epoch"], {})}
            for line in folder.metrics()
        ]
    columns = dict.fromkeys([*keys, "epoch", *(key for row in rows for key in row)])
    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.drop_duplicates(["signature", "epoch"], keep="last", ignore_index=True)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as CSV, whole or not at all."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def _row(runs_dir: Path, manifest: Manifest, run: PlannedRun, condition: str) -> dict[str, Any]:
    folder = RunFolder(runs_dir / run.signature)
    exists = folder.path.is_dir()
    status = folder.status() if exists else {"state": MISSING}
    # the files of a run at work change while they are read, and its state is in the last one written
    damages = folder.damages() if status["state"] != RUNNING else []
    config = folder.read_config()[0] if exists else {}
    environment = folder.environment()
    return {
        **((folder.result() if exists and not damages else None) or {}),
        **{column: _at(config, place) for column, place in (AXES | FIXED).items()},
        **{column: _at(environment, place) for column, place in ENVIRONMENT.items()},
        "code": code.short(environment),
        **{key: status.get(key) for key in PROGRESS},
        "hostname": status.get("host"),
        "study": manifest.name,
        "condition": condition,
        "seed": run.seed,
        "signature": run.signature,
        "pair_key": run.pair_key,
        "state": DAMAGED if damages else status["state"],
        "error": "; ".join(map(str, damages)) or _error(folder, status),
        **{factor: run.factors.get(factor, UNSET) for factor in manifest.factors},
    }


def _columns(manifest: Manifest, rows: list[dict[str, Any]]) -> list[str]:
    figures = [*_of_task(rows), *FIGURES]
    known = [*IDENTITY, *manifest.factors, *RUN, *PROGRESS, *figures]
    context = [*AXES, *FIXED, "hostname", *ENVIRONMENT, "code"]
    more_figures = sorted({key for row in rows for key in row} - {*known, *context})
    return list(dict.fromkeys([*known, *more_figures, *context]))


def _of_task(rows: list[dict[str, Any]]) -> list[str]:
    """Return the columns of the task's own figures, the loss last."""
    task = of_columns(key for row in rows for key in row) or of_task(DEFAULT)
    names = sorted((metric.name for metric in task.all), key=lambda name: name == LOSS.name)
    return [*(f"test_{name}" for name in names), task.validation_column]


def _error(folder: RunFolder, status: dict[str, Any]) -> str:
    """One line: what the status says, else the exception that ends the recorded traceback."""
    message = str(status.get("error") or "").strip()
    if message:
        return message.splitlines()[0]
    traceback = folder.error().strip() if status.get("state") == FAILED else ""
    return traceback.splitlines()[-1] if traceback else ""


def _at(tree: Any, place: str) -> Any:
    """The value at a dotted place of nested dictionaries, or None."""
    for key in place.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
