"""Committed records: experiments/<name>/results.csv and what is regenerated from it.

A record needs no run folders: results.csv has one row per run, curves.csv (if present) one row per
epoch, classes.csv (if present) the test figures by class, and `conf/study/` what the study asks. One folder
may hold several studies that belong together, distinguished by the column `study`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ablate.commands import command
from ablate.errors import UserError
from ablate.results import comparisons, conditions, figures, sentences
from ablate.results.comparisons import Findings
from ablate.results.evidence import Answers, Evidence, examine
from ablate.store.manifest import Manifest, PlannedRun
from ablate.store.metrics import DEFAULT, of_columns, of_task

RESULTS, CURVES, CLASSES = "results.csv", "curves.csv", "classes.csv"
TEXT = {"signature": str, "pair_key": str, "condition": str, "error": str}


def read(folder: Path, conf_dir: Path) -> dict[str, Evidence]:
    """The studies of a record, by name, in the order of its rows.

    Args:
        folder: experiments/<name>.
        conf_dir: the repository's `conf`.

    Raises:
        UserError: the folder has no results, or a study that `conf/study` does not know.
    """
    has_curves = (folder / CURVES).exists()
    curves = pd.read_csv(folder / CURVES, dtype=TEXT) if has_curves else pd.DataFrame({"condition": []})
    has_classes = (folder / CLASSES).exists()
    by_class = pd.read_csv(folder / CLASSES, dtype=TEXT | {"class": str}) if has_classes else None
    found = {}
    for manifest, runs in _studies(folder, conf_dir):
        theirs = curves[curves["signature"].isin(runs["signature"])] if has_curves else curves
        # A run that two studies of the folder share has a row in either, under its condition there.
        named = dict(zip(runs["signature"], runs["condition"], strict=True))
        if has_curves:
            theirs = theirs.assign(condition=theirs["signature"].map(named))
            theirs = theirs.drop_duplicates(["signature", "epoch"])
        of_classes = None
        if by_class is not None:
            of_classes = by_class[by_class["signature"].isin(runs["signature"])]
            of_classes = of_classes.assign(condition=of_classes["signature"].map(named))
            of_classes = of_classes.drop_duplicates(["signature", "metric", "class"])
        found[manifest.name] = examine(manifest, runs, theirs, answers=Answers(of_classes))
    return found


def pooled(folders: Sequence[Path], conf_dir: Path, host: str) -> Findings:
    """Every condition that any study of these records trained in one host.

    The first study with that host gives baseline and metric; the conditions of the others have their study's
    name before their own. A run that several studies share counts once, in the first of them.

    Args:
        folders: experiments/<name>.
        conf_dir: the repository's `conf`.
        host: as in the column `host`.

    Raises:
        UserError: as `read`; no run in that host.
    """
    found: list[pd.DataFrame] = []
    baseline = metric = ""
    for folder in folders:
        for manifest, runs in _studies(folder, conf_dir):
            theirs = runs[runs["host"] == host]
            if theirs.empty:
                continue
            if not found:
                baseline, metric = conditions.baseline(manifest), manifest.metric
            else:
                theirs = theirs.assign(condition=f"{manifest.name}: " + theirs["condition"])
            found.append(theirs)
    if not found:
        raise UserError(
            f"no run in host {host!r} in {', '.join(map(str, folders))}",
            "their column `host` has what there is",
        )
    together = pd.concat(found, ignore_index=True).drop_duplicates("signature", ignore_index=True)
    planned = [
        PlannedRun(run["signature"], run["pair_key"], int(run["seed"]), {"condition": run["condition"]})
        for run in together.to_dict("records")
    ]
    of_all = Manifest(
        name=host, baseline={"condition": baseline}, factors=["condition"], metric=metric, runs=planned
    )
    return comparisons.analyse(of_all, together)


def regenerate(folder: Path, conf_dir: Path, output: Path) -> list[Path]:
    """Write the figures (SVG) and tables of every study of a record, and return their paths.

    They lie in figures/ and tables/ under `output`, those of a study that is not called as the
    folder in a folder of its own within: experiments/operators/figures/swin/.
    """
    paths = []
    for study, evidence in read(folder, conf_dir).items():
        part = "" if study == folder.name else study.rpartition("/")[2]
        for name, draw in evidence.drawings().items():
            if name == "all_curves":  # a record shows the metric that it compares; curves.csv has the others
                continue
            if name != "learning_curves" or len(evidence.metrics):
                target = output / "figures" / part
                target.mkdir(parents=True, exist_ok=True)
                paths += figures.save(draw(), target / name, formats=("svg",))
        target = output / "tables" / part
        target.mkdir(parents=True, exist_ok=True)
        for table in evidence.tables:
            caption = evidence.manifest.question if table.name == "table" else ""
            paths += table.save(target, caption, study)
        paths += sentences.save(evidence.findings, target)
    return paths


def _studies(folder: Path, conf_dir: Path) -> Iterator[tuple[Manifest, pd.DataFrame]]:
    """Each study of a record with its runs."""
    if not (folder / RESULTS).exists():
        raise UserError(
            f"{folder} has no {RESULTS}",
            f"write it: {command('collect', folder.name, '-o', str(folder / RESULTS))}",
        )
    studies = pd.read_csv(folder / RESULTS, usecols=["study"])["study"].unique()
    asked = {str(study): _asked(str(study), conf_dir) for study in studies}
    levels = {str(factor): str for settings in asked.values() for factor in settings.get("factors") or ()}
    # only what is empty is missing: pandas would read the level `null` as a number that is
    rows = pd.read_csv(folder / RESULTS, dtype={**TEXT, **levels}, keep_default_na=False, na_values=[""])
    for study, runs in rows.groupby("study", sort=False):
        yield _manifest(str(study), asked[str(study)], runs), runs.reset_index(drop=True)


def _asked(study: str, conf_dir: Path) -> dict[str, Any]:
    """The node `study` of a study's file, on that of the study that it starts from, if any."""
    path = conf_dir / "study" / f"{study}.yaml"
    if not path.exists():
        raise UserError(f"study {study!r} of a record has no {path}", "a record keeps its study's settings")
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    started = [entry for entry in written.get("defaults", ()) if str(entry).startswith("/study/")]
    below = {key: value for entry in started for key, value in _asked(entry[7:], conf_dir).items()}
    return {**below, **written["study"]}


def _margin(runs: pd.DataFrame) -> dict[str, Any]:
    """The margin of a record's runs; the study's file cannot say whether it was set before them."""
    if "margin" not in runs or runs["margin"].isna().all():
        return {}
    first = runs.dropna(subset=["margin"]).iloc[0]
    return {"margin": float(first["margin"]), "margin_after": int(first["margin_after"])}


def _manifest(study: str, asked: Mapping[str, Any], runs: pd.DataFrame) -> Manifest:
    factors = [str(factor) for factor in asked.get("factors") or ()]
    planned = [
        PlannedRun(
            run["signature"], run["pair_key"], int(run["seed"]), {factor: run[factor] for factor in factors}
        )
        for run in runs.to_dict("records")
    ]
    return Manifest(
        name=study,
        question=asked.get("question") or "",
        baseline={str(key): conditions.text(value) for key, value in (asked.get("baseline") or {}).items()},
        factors=factors,
        paths=asked.get("paths") or {},
        metric=asked.get("metric") or (of_columns(runs.columns) or of_task(DEFAULT)).test_column,
        **_margin(runs),
        runs=planned,
    )
