"""The report of a study: one self-contained page, its figures, the table and the tidy results."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from ablate.errors import unknown
from ablate.results import (
    classes,
    curves,
    examples,
    exchanged,
    figures,
    formats,
    health,
    images,
    sentences,
    verdicts,
)
from ablate.results.collect import (
    FIXED,
    collect_metrics,
    collect_planned,
    mixed_code,
    refuse_mixed_code,
    write_csv,
)
from ablate.results.comparisons import Findings
from ablate.results.evidence import Answers, Evidence, examine
from ablate.results.examples import Examples
from ablate.results.figures.style import INK, PAPER
from ablate.results.selection import Selection, combine
from ablate.store.files import write_text
from ablate.store.folder import FINISHED, RunFolder
from ablate.store.manifest import load, study_dir
from ablate.store.metrics import find

TEMPLATE = "report.html.jinja"
ENVIRONMENT = ("commit", "dirty", "versions", "hardware", "numerics")  # parts by which environments differ
MOST_ROWS = 250  # of a table on the page; its files have all
MOST_PICTURED = 5  # conditions whose predictions are drawn


EVERYTHING = Selection()


@dataclass(frozen=True)
class Options:
    """Options of a report: its comparisons, and its selection.

    Attributes:
        paired: runs are compared within seeds; see `evidence.examine`, also for `target`.
        target: a validation accuracy in percent.
        margin: of equivalence, in the unit of the metric, instead of the study's own; marked as chosen after
            the runs.
        mixed: runs that were computed by different code are compared all the same, and the page says so.
        selection: another baseline or metric, and a part of the runs.
        gained: conditions whose gained and lost test images are shown, beside the one that differs most.
    """

    paired: bool = True
    target: float | None = None
    margin: float | None = None
    mixed: bool = False
    selection: Selection = EVERYTHING
    gained: Sequence[str] = ()


USUAL = Options()


def report(
    runs_dir: Path,
    study: str | Sequence[str],
    output: Path | None = None,
    *,
    paired: bool = True,
    target: float | None = None,
    margin: float | None = None,
    mixed: bool = False,
) -> list[Path]:
    """Write the report of a study, finished or not, and return the paths of its files.

    They are index.html (figures inside, no request to anywhere), the figures as SVG and PNG, every
    table as Markdown, LaTeX and CSV, once as it reads and once with its numbers in columns of their own
    (table_values.csv), results.csv (one row per run), curves.csv (one row per epoch) and, where
    the task has figures by class, classes.csv, in `output` or else studies/<study>/report under `runs_dir`.

    Args:
        runs_dir: where the runs lie.
        study: its name, or the names of several, which are compared on one page.
        output: a folder.
        paired: whether runs are compared within seeds; see `evidence.examine`, also for `target`.
        target: a validation accuracy in percent.
        margin: of equivalence, in the unit of the metric, instead of the study's own; marked as chosen after
            the runs.
        mixed: runs that were computed by different code are compared all the same, and the page says so.

    Raises:
        UserError: see `examined`.
    """
    studies = [study] if isinstance(study, str) else list(study)
    found = examined(runs_dir, studies, Options(paired, target, margin, mixed))
    return write(found, runs_dir, output or folder_of(runs_dir, studies))


def folder_of(runs_dir: Path, studies: Sequence[str]) -> Path:
    """Return the folder of a report: that of the study; of several, one within that of the first."""
    folder = study_dir(runs_dir, studies[0]) / "report"
    return folder / ("with_" + "_".join(studies[1:]).replace("/", "-")) if len(studies) > 1 else folder


def examined(runs_dir: Path, studies: Sequence[str], options: Options = USUAL) -> Evidence:
    """Read the runs of a study, or of several as one, and compute every analysis that their design allows.

    Raises:
        UserError: there is no such study, it names no baseline that it has, its runs were computed by
            different code, or the selection names something that it does not have.
    """
    chosen = options.selection
    manifests = [load(runs_dir, name) for name in dict.fromkeys(studies)]
    if len(manifests) > 1 and chosen.metric:
        manifests = [Selection(metric=chosen.metric).apply(manifest) for manifest in manifests]
    manifest = combine(manifests)
    if chosen:
        manifest = chosen.apply(manifest)
    runs = collect_planned(runs_dir, manifest)
    if not options.mixed:
        refuse_mixed_code(runs_dir, runs, [one.name for one in manifests])
    kept = images.collect(runs_dir, runs)
    found = examine(
        manifest,
        runs,
        collect_metrics(runs_dir, runs),
        paired=options.paired,
        target=options.target,
        margin=options.margin,
        answers=Answers(classes.collect(runs_dir, runs, kept), kept),
    )
    known = [each.condition for each in found.findings.comparisons]
    for condition in options.gained:
        if condition not in known:
            raise unknown("condition that is compared with the baseline:", condition, known)
    exchanges = exchanged.choose(found.findings, found.images, kept, options.gained)
    return replace(found, selection=str(chosen), exchanges=exchanges)


def write(
    evidence: Evidence,
    runs_dir: Path,
    folder: Path,
    source: exchanged.Source | None = None,
    notices: Sequence[str] = (),
) -> list[Path]:
    """Write page, figures, tables and CSV files of a study into a folder; return the paths, page first.

    Args:
        evidence: of the study.
        runs_dir: where the runs lie.
        folder: is made if it does not exist.
        source: of test images, `studies.pictures.of_run`; None: none are shown.
        notices: what else a reader of the page should know, such as plug-ins that could not be loaded.
    """
    paths = write_evidence(evidence, folder)
    shown = exchanged.show(evidence.exchanges, runs_dir, source)
    if shown.exchanges:
        paths += figures.save(figures.exchanged(shown), folder / "gained")
    pictured = _pictured(evidence.findings, runs_dir)
    if pictured.shown:
        paths += figures.save(_predictions(pictured), folder / "predictions")
    frames = {"results.csv": evidence.findings.runs, "curves.csv": evidence.metrics}
    if evidence.by_class is not None and len(evidence.by_class):
        frames["classes.csv"] = evidence.by_class
    for name, frame in frames.items():
        write_csv(frame, folder / name)
    drawings = {path.stem: path for path in paths if path.suffix == ".svg"}
    page = folder / "index.html"
    write_text(page, _page(evidence, runs_dir, drawings, pictured, shown, notices))
    return [page, *paths, *(folder / name for name in frames)]


def write_evidence(evidence: Evidence, folder: Path) -> list[Path]:
    """Write every figure and table of a study into a folder, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = evidence.manifest
    caption = manifest.question or f"Study {manifest.name}."
    paths = [
        path for name, draw in evidence.drawings().items() for path in figures.save(draw(), folder / name)
    ]
    for table in evidence.tables:
        paths += table.save(folder, caption if table.name == "table" else "", manifest.name)
        values = folder / f"{table.name}_values.csv"
        write_csv(table.values(), values)
        paths.append(values)
    return [*paths, *sentences.save(evidence.findings, folder)]


class _Pictured(NamedTuple):
    """Runs of one seed whose predictions are drawn, by condition."""

    seed: int
    shown: dict[str, Examples]


def _pictured(findings: Findings, runs_dir: Path) -> _Pictured:
    """Choose the seed with most examples, the baseline, and the conditions that differ from it most."""
    ranked = sorted(findings.comparisons, key=lambda each: -abs(np.nan_to_num(each.difference)))
    chosen = {findings.baseline, *(each.condition for each in ranked[: MOST_PICTURED - 1])}
    found: dict[int, dict[str, Examples]] = {}
    runs = findings.runs[findings.runs["condition"].isin(chosen) & (findings.runs["state"] == FINISHED)]
    for condition, seed, signature in zip(runs["condition"], runs["seed"], runs["signature"], strict=True):
        kept = examples.read(RunFolder(runs_dir / signature).examples_path)
        if kept is not None and kept.images:
            found.setdefault(int(seed), {})[str(condition)] = kept
    if not found:
        return _Pictured(0, {})
    seed = max(sorted(found), key=lambda each: len(found[each]))
    return _Pictured(seed, found[seed])


def _predictions(pictured: _Pictured) -> Figure:
    """Draw the test images that all chosen runs kept, with the predictions of each."""
    runs = list(pictured.shown.values())
    rows = list(zip(*(run.images for run in runs), strict=False))
    answers = [[row[0].labels, *(one.predictions for one in row)] for row in rows]
    images = [row[0].image.astype(np.float32) / 255 for row in rows]
    return figures.predictions(images, answers, runs[0].names, ("labels", *pictured.shown))


def _page(
    evidence: Evidence,
    runs_dir: Path,
    drawings: dict[str, Path],
    pictured: _Pictured,
    shown: exchanged.Shown,
    notices: Sequence[str],
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ablate.results", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    findings = evidence.findings
    states = findings.runs["state"].value_counts()
    conditions, *more = evidence.tables
    mixed = _mixed(findings, runs_dir)
    code = findings.runs["code"] if "code" in findings.runs else pd.Series(None, findings.runs.index)
    unknown_code = int((code.isna() & (findings.runs["state"] == FINISHED)).sum())
    return environment.get_template(TEMPLATE).render(
        manifest=findings.manifest,
        findings=findings,
        metric=find(findings.metric),
        sentences=sentences,
        curve=find(curves.column(findings.runs)),
        evidence=evidence,
        verdicts=_verdicts(findings),
        advice=images.advice(evidence.images.compared) if evidence.images else "",
        families=sentences.other_families(evidence.paths, evidence.factorial, evidence.matched),
        pictured=pictured,
        exchanged=shown,
        notices=notices,
        finished=int((findings.runs["state"] == FINISHED).sum()),
        states={str(state): int(count) for state, count in states.items()},
        fixed=_fixed(findings.runs),
        conditions=conditions,
        tables={table.name: table for table in more},
        most=MOST_ROWS,
        formats=formats,
        figures={name: inline_svg(path.read_text(encoding="utf-8"), name) for name, path in drawings.items()},
        unfinished=_unfinished(findings),
        odd=_odd(evidence),
        health=health.checks(evidence, mixed=len(mixed), unknown=unknown_code),
        mixed=mixed,
        unknown_code=unknown_code,
        environments=_environments(findings.runs, runs_dir),
        configuration=_configuration(findings, runs_dir),
    )


def _verdicts(findings: Findings) -> dict[str, int]:
    """Number of comparisons by the word of their verdict, without the words that none has."""
    counts = Counter(each.verdict.word for each in findings.comparisons if each.verdict is not None)
    return {word: counts[word] for word in verdicts.WORDS if counts[word]}


def _odd(evidence: Evidence) -> list[dict[str, Any]]:
    """The finished runs that did not converge, with the reason."""
    runs = evidence.findings.runs.set_index("signature")
    return [
        {
            "condition": runs.loc[signature, "condition"],
            "seed": runs.loc[signature, "seed"],
            "signature": signature,
            "reason": reason,
        }
        for signature, reason in evidence.not_converged.items()
        if signature in runs.index
    ]


def _mixed(findings: Findings, runs_dir: Path) -> list[dict[str, Any]]:
    """List, for each module with several texts, the runs of each text: condition, seed and signature."""
    columns = (findings.runs[name] for name in ("signature", "condition", "seed"))
    names = {run: f"{condition}, seed {seed} ({run})" for run, condition, seed in zip(*columns, strict=True)}
    return [
        {"module": module, "groups": [[names[signature] for signature in group] for group in groups]}
        for module, groups in mixed_code(runs_dir, findings.runs).items()
    ]


def inline_svg(svg: str, name: str) -> Markup:
    """An SVG file of ours as part of a page: the page's own ink and paper, and its own identifiers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--card)")
    return Markup(svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1))


def _fixed(runs: pd.DataFrame) -> dict[str, str]:
    """Settings that are the same in all runs, by name; if they differ, all the values."""
    levels = {column: runs[column].dropna().astype(str).unique() for column in FIXED}
    return {column: ", ".join(names) for column, names in levels.items() if len(names)}


def _unfinished(findings: Findings) -> list[dict[str, Any]]:
    rows = findings.unfinished()[["condition", "seed", "signature", "state", "epoch", "epochs", "error"]]
    return [
        {
            **row,
            "progress": f"{row['epoch']} of {row['epochs']}" if pd.notna(row["epoch"]) else formats.NOTHING,
            "error": f"no finite {findings.metric}" if row["state"] == FINISHED else row["error"],
        }
        for row in (dict(zip(rows.columns, values, strict=True)) for values in rows.itertuples(index=False))
    ]


def _environments(runs: pd.DataFrame, runs_dir: Path) -> list[tuple[int, dict[str, str]]]:
    """The different environments that runs were trained in, the most frequent first."""
    records = (RunFolder(runs_dir / signature).environment() for signature in runs["signature"])
    kinds = Counter(
        json.dumps({key: record.get(key) for key in ENVIRONMENT}) for record in records if record is not None
    )
    return [(count, _described(json.loads(kind))) for kind, count in kinds.most_common()]


def _described(environment: dict[str, Any]) -> dict[str, str]:
    def listed(values: Any) -> str:
        pairs = values.items() if isinstance(values, dict) else ()
        return ", ".join(f"{key} {value}" for key, value in pairs)

    dirty = " with uncommitted changes" if environment["dirty"] else ""
    numerics = environment["numerics"]  # not recorded by earlier versions
    return {
        "Commit": f"{environment['commit'] or 'unknown'}{dirty}",
        "Versions": listed(environment["versions"]),
        "Hardware": listed(environment["hardware"]),
        **({"Numerics": listed(numerics)} if numerics else {}),
    }


def _configuration(findings: Findings, runs_dir: Path) -> str:
    """The frozen configuration of the baseline's first run that has one, as it is in its file."""
    baseline = findings.runs[findings.runs["condition"] == findings.baseline]
    paths = (RunFolder(runs_dir / signature).config_path for signature in baseline["signature"])
    return next((path.read_text(encoding="utf-8", errors="replace") for path in paths if path.exists()), "")
