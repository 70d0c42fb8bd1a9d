"""Studies from Python: load, compare, report and train them, in a notebook or a script.

`import ablate` offers `ablate.Study`, `ablate.train`, and `ablate.runs` for the runs of all studies. The
command line does the same with the same words, and also compares several studies. Start reading in `Study`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import pandas as pd

from ablate import commands, plugins
from ablate.configuration import conf_dir
from ablate.errors import UserError, unknown
from ablate.results import collect, record
from ablate.results.conditions import labels
from ablate.results.evidence import Answers, Evidence, examine
from ablate.results.figures.seeds import smallest_difference
from ablate.results.report import Options, examined, folder_of, write
from ablate.results.selection import Selection
from ablate.store import manifest as manifests
from ablate.store.folder import RunFolder
from ablate.store.manifest import Manifest
from ablate.studies import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ablate.results.tables import Table

Words = str | Sequence[str]


class Choices(TypedDict, total=False):
    """Choices for a comparison or a report, as the options of `ablate report`.

    `paired=False` is `--unpaired`, `mixed=True` is `--mixed-code`; the others have the option's name.
    """

    baseline: Words
    metric: str
    only: Words
    drop: Words
    seeds: Sequence[int]
    margin: float
    target: float
    paired: bool
    mixed: bool
    gained: Words


@dataclass(frozen=True)
class Study:
    """A study: its runs, their comparisons, and its report.

    Attributes:
        manifest: question, baseline, factors, metric, margin and planned runs.
        runs_dir: folder of the runs; None for a study of a committed record.
        recorded: all that a record has of it.
    """

    manifest: Manifest
    runs_dir: Path | None = None
    recorded: Evidence | None = field(default=None, repr=False)

    @classmethod
    def load(cls, name: str, runs_dir: str | Path | None = None) -> Study:
        """Return a study, finished or not; a run's signature is the name of a study of one run.

        Args:
            name: as `study.name` or `study=` chose it.
            runs_dir: folder of the runs; None: `runs`, here or in the nearest parent folder that has one.

        Raises:
            UserError: there is no such study; names the nearest one.
        """
        folder = _runs_dir(runs_dir)
        return cls(manifests.load(folder, name), folder)

    @classmethod
    def records(cls, folder: str | Path, conf: str | Path | None = None) -> dict[str, Study]:
        """Return the studies of a committed record, `experiments/<name>`, by name. It needs no run folders.

        Args:
            folder: of the record.
            conf: the `conf` that has the studies' files; None: that of this installation.

        Raises:
            UserError: the folder is not a record, or `conf` does not know one of its studies.
        """
        plugins.load()
        found = record.read(Path(folder), conf_dir() if conf is None else Path(conf))
        return {name: cls(evidence.manifest, None, evidence) for name, evidence in found.items()}

    @classmethod
    def pooled(cls, folders: Sequence[str | Path], host: str, conf: str | Path | None = None) -> Study:
        """Return every condition that the studies of several records trained in one host, as one study.

        The first study in that host gives baseline and metric; a run that several studies share counts once.

        Args:
            folders: of the records.
            host: as in `host=`.
            conf: see `records`.

        Raises:
            UserError: see `records`; no run in that host.
        """
        plugins.load()
        findings = record.pooled(
            [Path(folder) for folder in folders], conf_dir() if conf is None else Path(conf), host
        )
        return cls(findings.manifest, None, examine(findings.manifest, findings.runs, pd.DataFrame()))

    @property
    def name(self) -> str:
        """Its name."""
        return self.manifest.name

    @property
    def conditions(self) -> list[str]:
        """Names of its conditions, in their order."""
        return list(dict.fromkeys(labels(self.manifest)))

    def frame(self) -> pd.DataFrame:
        """One row per run, unfinished ones too: condition, factors, seed, state, figures, cost, environment.

        Accuracies are in percent, throughput in training images per second, memory in bytes.
        """
        if self.recorded is not None:
            return self.recorded.findings.runs.copy()
        return collect.collect_planned(self._folder(), self.manifest)

    def curves(self) -> pd.DataFrame:
        """One row per run and epoch: losses, validation figures, learning rate and speed."""
        if self.recorded is not None:
            return self.recorded.metrics.copy()
        return collect.collect_metrics(self._folder(), self.frame())

    def evidence(self, **choices: Unpack[Choices]) -> Evidence:
        """Return every analysis that the study's design allows: `findings`, `factorial`, `paths`, `tables`.

        Args:
            **choices: as the options of `ablate report` with these names: baseline, metric, only, drop,
                seeds, margin, target, paired, mixed, gained.

        Raises:
            UserError: a choice, level or condition that does not exist, or runs of different code.
        """
        options = _options(choices)
        if self.recorded is None:
            return examined(self._folder(), [self.name], options)
        return _examined_again(self.recorded, options)

    def compare(self, **choices: Unpack[Choices]) -> pd.DataFrame:
        """Compare every condition with the baseline: one row each, numbers in columns of numbers.

        `difference` is in the unit of the metric, of accuracies in percentage points; `low` and `high` are
        its 95 % interval by itself, `simultaneous_low` and `simultaneous_high` that over all comparisons.
        `smallest_shown` is the true difference that so many runs show four times in five, if they scatter
        as these did.

        Args:
            **choices: see `evidence`.
        """
        found = self.evidence(**choices).findings.comparisons
        shown = {(each.n, each.paired): _smallest(each.n, each.paired) for each in found}
        rows = [
            {
                "condition": each.condition,
                "baseline": each.baseline,
                "n": each.n,
                "mean": each.mean_condition,
                "baseline_mean": each.mean_baseline,
                "difference": each.difference,
                **dict(zip(("low", "high"), each.interval, strict=True)),
                **dict(zip(("simultaneous_low", "simultaneous_high"), each.simultaneous, strict=True)),
                "effect_size": each.effect_size,
                "p": each.p,
                "p_holm": each.p_holm,
                "smallest_shown": each.sd * shown[each.n, each.paired],
                "margin": each.margin,
                "verdict": "" if each.verdict is None else each.verdict.word,
            }
            for each in found
        ]
        return pd.DataFrame(rows)

    def report(self, output: str | Path | None = None, **choices: Unpack[Choices]) -> Path:
        """Write page, figures and tables, and return the path of the page.

        Args:
            output: a folder; None: that of `ablate report`, beside the runs.
            **choices: see `evidence`.

        Raises:
            UserError: see `evidence`; a study of a record without `output`.
        """
        if output is None and self.runs_dir is None:
            raise UserError(
                f"study {self.name} is of a record, which has no place for a report", "give output"
            )
        evidence = self.evidence(**choices)
        folder = Path(output) if output is not None else folder_of(self._folder(), [self.name])
        runs_dir, notices = self.runs_dir or folder / "no-runs", plugins.lines_of_broken()
        return write(evidence, runs_dir, folder, pictures.of_run, notices)[0]

    def table(self, name: str = "table", **choices: Unpack[Choices]) -> Table:
        """Return a table of the report: its `frame()`, `values()`, `markdown()`, `latex()`.

        `front` is a table, too, which reports do not have: the Pareto front of mean and MACs.

        Raises:
            UserError: the study has no table of this name; names those that it has.
        """
        from ablate.results.tables import front

        evidence = self.evidence(**choices)
        found = {table.name: table for table in (*evidence.tables, front(evidence.findings))}
        if name not in found:
            raise unknown(f"table of study {self.name}", name, found)
        return found[name]

    def figure(self, name: str, **choices: Unpack[Choices]) -> Figure:
        """Return a figure of the report, e.g. `differences` or `main_effects`.

        Raises:
            UserError: the study has no figure of this name; names those that it has.
        """
        found = self.evidence(**choices).drawings()
        if name not in found:
            raise unknown(f"figure of study {self.name}", name, found)
        return found[name]()

    def _folder(self) -> Path:
        assert self.runs_dir is not None
        return self.runs_dir


def runs(runs_dir: str | Path | None = None, **where: Any) -> pd.DataFrame:
    """Return all runs of a folder, of every study and of none: one row each, as `Study.frame` has them.

    Args:
        runs_dir: folder of the runs; None: `runs`, here or in the nearest parent folder that has one.
        **where: columns and their values: `operator="elsa"`, `seed=0`, `state="finished"`.

    Raises:
        UserError: a column that runs do not have.
    """
    folder = _runs_dir(runs_dir)
    paths = sorted(path.parent for path in folder.glob("*/config.yaml"))
    planned = [run for path in paths for run in manifests.of_run(RunFolder(path)).runs]
    frame = collect.collect_planned(folder, Manifest("runs", factors=["op"], runs=planned))
    frame = frame.drop(columns=["study", "condition", "op"])
    for column, value in where.items():
        if column not in frame:
            raise unknown("column of runs", column, map(str, frame.columns))
        frame = frame[frame[column] == value]
    return frame.reset_index(drop=True)


def train(settings: Mapping[str, Any]) -> Study:
    """Train a run or a study, as `ablate train` does, and return it. What is finished is not computed again.

    Args:
        settings: choices of groups and settings, nested or dotted, e.g. `{"op": "elsa", "recipe": {"epochs":
            5}, "seed": 0}`. A list is swept: `{"op": ["lsa", "elsa"], "seed": [0, 1]}`. A tuple is one value
            that is a list: `{"host.stages": (1, 2)}`.

    Raises:
        UserError: a setting or combination that cannot exist, before anything is written; a run that failed.
        KeyboardInterrupt: the runs were interrupted; the same call resumes them.
    """
    from ablate.cli import loading
    from ablate.cli.train import train as command_line
    from ablate.launch.study import submitted

    words = [*(["-m"] if _sweeps(settings) else []), *_overrides(settings)]
    before = sys.argv
    code: object = 0
    with submitted() as done:
        try:
            command_line(loading.load(["train", *words])[1:])
        except SystemExit as stopped:
            code = stopped.code
        finally:
            sys.argv = before
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if not done:
        raise UserError(f"ablate train {' '.join(words)} started nothing", "see `ablate train --help`")
    study = Study(done[0].manifest, done[0].runs_dir)
    if code:
        failed = study.frame().query("state != 'finished'")
        raise UserError(
            f"{len(failed)} of {len(study.manifest.runs)} runs of {study.name} did not finish: "
            f"{failed['error'].iloc[0] if len(failed) else code}",
            f"ablate.Study.load({study.name!r}).frame() has the errors of all",
        )
    return study


INTERRUPTED = 130  # exit code of `ablate train` after Ctrl-C


def _runs_dir(given: str | Path | None) -> Path:
    """The folder of the runs; plug-ins are loaded first, whose metrics and operators the runs may name."""
    plugins.load()
    found = commands.default_runs_dir() if given is None else Path(given).expanduser()
    if given is None and (words := commands.found_above(found)):
        print(words, file=sys.stderr)
    return found.resolve()


def _smallest(n: int, paired: bool) -> float:
    """Smallest difference that n runs show with a power of 80 %, in standard deviations; NaN for one run."""
    return smallest_difference(1.0, n, paired=paired) if n > 1 else math.nan


def _words(given: Words) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _options(choices: Choices) -> Options:
    known = list(Choices.__annotations__)
    for name in choices:
        if name not in known:
            raise unknown("choice", name, known)
    selection = Selection(
        _words(choices.get("baseline", ())),
        choices.get("metric"),
        list(choices.get("seeds", ())),
        _words(choices.get("only", ())),
        _words(choices.get("drop", ())),
    )
    target, margin = choices.get("target"), choices.get("margin")
    mixed, gained = choices.get("mixed", False), _words(choices.get("gained", ()))
    return Options(choices.get("paired", True), target, margin, mixed, selection, gained)


def _examined_again(recorded: Evidence, options: Options) -> Evidence:
    """Analyse a study of a record once more, with the options of a reader."""
    if options == Options():
        return recorded
    chosen = options.selection.apply(recorded.manifest)
    names = dict(zip((run.signature for run in chosen.runs), labels(chosen), strict=True))

    def of(frame: pd.DataFrame) -> pd.DataFrame:
        if "signature" not in frame:
            return frame
        left = frame[frame["signature"].isin(list(names))]
        return left.assign(condition=left["signature"].map(names)).reset_index(drop=True)

    by_class = recorded.by_class
    return examine(
        chosen,
        of(recorded.findings.runs),
        of(recorded.metrics),
        paired=options.paired,
        target=options.target,
        margin=options.margin,
        answers=Answers(None if by_class is None else of(by_class)),
    )


def _flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        else:
            yield name, value


def _sweeps(settings: Mapping[str, Any]) -> bool:
    return any(isinstance(value, list) for _, value in _flat(settings))


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in _flat(settings):
        if isinstance(value, list) and not value:
            raise UserError(f"{name}=[] sweeps over nothing", "give one value or more; a tuple is one list")
        levels = value if isinstance(value, list) else [value]
        found.append(f"{name}={','.join(map(_in_hydra, levels))}")
    return found


def _in_hydra(value: Any) -> str:
    """Return a value in the grammar of Hydra's overrides."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{','.join(map(_in_hydra, value))}]"
    return str(value) if isinstance(value, int | float) else commands.quoted_for_hydra(str(value))
