"""Figures that do not change, and a page that asks nothing of anyone."""

import hashlib
import itertools
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from tests.results.conftest import configuration, fabricate_run

from ablate.results import evidence, figures
from ablate.results.collect import collect
from ablate.results.conditions import labels
from ablate.results.figures.encoding import encode
from ablate.results.figures.placement import spread
from ablate.results.figures.style import INK, PAPER, looks
from ablate.results.report import report, write_evidence
from ablate.store.identity import signature
from ablate.store.manifest import Manifest, PlannedRun

FIGURES = ("differences", "pairs", "confidence", "accuracy_macs", "learning_curves")
TABLES = ("table", "all_pairs", "time_to_accuracy", "comparisons")
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Checks that tags close in order and identifiers are unique; collects the addresses asked for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        assert not self.open
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def index(paths):
    return next(path for path in paths if path.name == "index.html").read_text(encoding="utf-8")


def test_a_half_finished_study_has_its_report(half_finished, tmp_path):
    paths = report(tmp_path, "quick")
    assert {path.name for path in paths} == {
        "index.html",
        "results.csv",
        "curves.csv",
        "sentences.md",
        *(f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png")),
        *(f"{name}{kind}" for name in TABLES for kind in (".md", ".tex", ".csv", "_values.csv")),
    }
    assert {path.parent for path in paths} == {tmp_path / "studies/quick/report"}
    page = index(paths)
    assert "3 of 9 planned runs do not count yet" in page
    assert "ablate train -m study=quick" in page


def test_the_page_is_whole_and_asks_no_other_host(half_finished, tmp_path):
    page = Page(text := index(report(tmp_path, "quick")))
    own_files = re.compile(r"(#|data:,|[a-z_]+\.(svg|png|md|tex|csv)$)")
    assert [address for address in page.addresses if not own_files.match(address)] == []
    assert re.findall(r"(?<!xmlns=\")(?<!xmlns:xlink=\")https?://", text) == []
    assert page.tags.count("svg") == len(FIGURES)


def test_what_runs_wrote_is_text_and_not_markup(half_finished, tmp_path):
    page = Page(text := index(report(tmp_path, "quick")))
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; more" in text
    assert "Is &lt;b&gt;100 %&lt;/b&gt; of it" in text
    assert page.tags.count("script") == 1


def test_drawing_again_gives_the_same_bytes(half_finished, tmp_path):
    first, second = (report(tmp_path, "quick", tmp_path / name) for name in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


@pytest.mark.parametrize("outcome", [None, ("pending", ""), ("failed", "out of memory")])
def test_a_study_without_any_figure_says_so(fabricate, tmp_path, outcome):
    fabricate({"lsa": {0: outcome}, "elsa": {0: outcome}})
    page = index(report(tmp_path, "quick"))
    assert "No run of this study has finished yet" in page
    Page(page)


def test_a_study_of_one_condition_and_one_seed_has_a_report(fabricate, tmp_path):
    fabricate({"lsa": {0: 84.0}})
    Page(index(report(tmp_path, "quick")))


def test_runs_in_different_environments_are_pointed_out(half_finished, tmp_path):
    assert "not all trained in the same environment" not in index(report(tmp_path, "quick"))
    environment = tmp_path / half_finished.runs[0].signature / "environment.json"
    environment.write_text(environment.read_text().replace("EPYC", "Xeon"))
    assert "not all trained in the same environment" in index(report(tmp_path, "quick"))


def factorial(seeds=5, heads=("1x", "C")):
    """Two factors and a walk through them, one run failed, one cell never run."""
    noise = np.random.default_rng(0)
    factors = {"op.channel.heads": heads, "op/region": ["window", "neighborhood", "global"]}
    planned, rows = [], []
    for seed in range(seeds):
        for cell in itertools.product(*factors.values()):
            if cell == (heads[1], "global"):
                continue
            levels = dict(zip(factors, cell, strict=True))
            signature = hashlib.sha256(f"{seed} {cell}".encode()).hexdigest()[:12]
            planned.append(PlannedRun(signature, str(cell), seed, levels))
            state = "failed" if (seed, cell) == (3, (heads[1], "window")) else "finished"
            top1 = 80 + 2 * (cell[0] == heads[1]) + (cell[1] == "neighborhood") + noise.normal(0, 0.3) + seed
            rows.append({**levels, "seed": seed, "signature": signature, "state": state, "test_top1": top1})
    walk = [f"heads={heads[0]}, region=window", *(f"heads={one}, region=neighborhood" for one in heads)]
    manifest = Manifest("walk", factors=list(factors), runs=planned, paths={"one way": walk})
    frame = pd.DataFrame(rows).assign(condition=labels(manifest), macs=1e6, parameters=1e5, throughput=100.0)
    return evidence.examine(manifest, frame.assign(epoch=1, epochs=2, error=""), pd.DataFrame())


def test_factors_and_walks_have_figures_and_tables_that_do_not_change(tmp_path):
    one, other = (write_evidence(factorial(), tmp_path / name) for name in ("one", "other"))
    names = {path.name for path in one}
    assert {"roadmap.svg", "main_effects.svg", "interactions.svg", "differences.svg"} <= names
    assert {"roadmap.md", "effects.tex", "interactions.csv", "variance.md", "matched_budget.md"} <= names
    for first, second in zip(one, other, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    effects = (tmp_path / "one" / "effects.md").read_text(encoding="utf-8")
    assert "Left out, because a cell is missing: seed 3." in effects
    assert "Missing: C, global." in effects
    assert "1 does not count: 1 failed" in effects
    assert "in all" in (tmp_path / "one" / "roadmap.svg").read_text(encoding="utf-8")  # as a comment


STRANGE = ("\\$\\foo{\\$", "$x_1$", "_hidden", "<b>&amp;", "50 %", "a#b^c~d")


def strangely_named():
    """One seed of conditions with names that mean something to matplotlib, XML or LaTeX."""
    planned = [PlannedRun(name, name, 0, {"op": name}) for name in STRANGE]
    rows = [{"op": name, "signature": name, "condition": name} for name in STRANGE]
    frame = pd.DataFrame(rows).assign(seed=0, state="finished", epoch=2, epochs=2, error="", test_top1=80.0)
    frame = frame.assign(macs=1e6, parameters=1e5, throughput=100.0)
    curves = [{"condition": name, "seed": 0, "epoch": epoch} for name in STRANGE for epoch in (1, 2)]
    metrics = pd.DataFrame(curves).assign(validation_top1=80.0, state="finished", seconds=1.0)
    metrics = metrics.assign(train_loss=1.0, validation_loss=2.0)
    metrics["signature"] = metrics["condition"]
    return evidence.examine(Manifest("strange", factors=["op"], runs=planned), frame, metrics)


def test_names_are_text_in_every_figure_and_never_mathematics(tmp_path):
    studies = {"differences": strangely_named(), "main_effects": factorial(heads=STRANGE[:2])}
    for shows_names, found in studies.items():
        for name, draw in found.drawings().items():
            figure = draw()
            figures.save(figure, tmp_path / name)
            texts = figure.findobj(Text)
            assert not any(text.get_parse_math() for text in texts), name
            written = " ".join(text.get_text() for text in texts)
            if name == shows_names:
                levels = STRANGE if name == "differences" else STRANGE[:2]
                assert [level for level in levels if level not in written] == []


@pytest.mark.parametrize("shape", [(300, 1), (2, 150), (200, 10)])
def test_a_large_study_has_a_light_page_soon(shape, tmp_path):
    """Hundreds of conditions, or hundreds of seeds: what is left out of a figure is said."""
    conditions, seeds = shape
    found = np.random.default_rng(0).normal(80, 1, shape)
    runs = [
        PlannedRun(signature(configuration(f"op{c}", s)), f"{c}", s, {"op": f"op{c}"})
        for c in range(conditions)
        for s in range(seeds)
    ]
    study = Manifest("large", factors=["op"], runs=runs)
    study.save(tmp_path)
    for run in runs:
        fabricate_run(tmp_path, run, float(found[int(run.factors["op"][2:]), run.seed]))
    start = time.process_time()  # other work on the machine does not count
    page = report(tmp_path, "large")[0]
    assert time.process_time() - start < 30
    assert page.stat().st_size < 3_000_000
    text = page.read_text(encoding="utf-8")
    assert ("The first 250 of 300 rows" in text) == (conditions == 300)


@pytest.mark.parametrize("module", ["collect", "report"])
def test_neither_torch_nor_anything_slow_is_imported(half_finished, tmp_path, module):
    script = f"""
import sys
from pathlib import Path
from ablate.results.{module} import {module}
{module}(Path({str(tmp_path)!r}), "quick")
slow = ("torch", "timm", "scipy.stats", "statsmodels", "matplotlib.pyplot")
print([name for name in slow if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert run.stdout.strip() == "[]"


def test_a_run_is_collected_in_milliseconds(fabricate, tmp_path):
    fabricate({f"op{i}": dict.fromkeys(range(5), ("pending", "")) for i in range(40)})
    start = time.perf_counter()
    assert len(collect(tmp_path, "quick")) == 200
    assert time.perf_counter() - start < 2  # 10 ms a run


def test_a_condition_keeps_its_look_and_no_two_share_one():
    names = [f"op{i}" for i in range(24)]
    everything = looks(names, "op3")
    assert len({(look.color, look.marker) for look in everything.values()}) == 24
    assert everything["op3"].color == INK


def crossed(**factors):
    """Every combination of these levels with three seeds, and its evidence."""
    cells = [dict(zip(factors, cell, strict=True)) for cell in itertools.product(*factors.values())]
    runs = [PlannedRun(f"{s}-{c}", f"{c}", s, cell) for s in range(3) for c, cell in enumerate(cells)]
    manifest = Manifest("crossed", factors=list(factors), runs=runs)
    rows = [{**run.factors, "seed": run.seed, "signature": run.signature} for run in runs]
    frame = pd.DataFrame(rows).assign(condition=labels(manifest), state="finished", macs=1e6, throughput=1.0)
    frame["test_top1"] = 80 + 3 * np.random.default_rng(0).random(len(frame))
    frame = frame.assign(parameters=1e5, error="", epochs=2)
    epochs = pd.concat([frame.assign(epoch=epoch, validation_top1=frame["test_top1"]) for epoch in (1, 2)])
    return evidence.examine(manifest, frame.assign(epoch=2), epochs)


def test_many_conditions_share_the_looks_of_their_levels_and_nothing_is_cut_off():
    terms = "[bias]", "[content,bias]", "[query_position,key_position,bias]"
    study = crossed(
        terms=terms, region=("window", "neighborhood"), norm=("softmax", "filter_norm", "identity")
    )
    looks = encode(study.findings).looks
    assert len(set(looks.values())) == 18
    for one, other in itertools.combinations(looks, 2):
        alike = [a == b for a, b in zip(one.split(", "), other.split(", "), strict=True)]
        first, second = looks[one], looks[other]
        assert [
            first.color == second.color,
            first.filled == second.filled,
            first.marker == second.marker,
        ] == alike
    for name, draw in study.drawings().items():
        figure = draw()
        extent = figure.get_tightbbox()  # inches
        assert 0 <= extent.x0 < extent.x1 <= figure.get_figwidth(), name
        assert 0 <= extent.y0 < extent.y1 <= figure.get_figheight(), name


def test_what_stands_on_colour_keeps_its_own_on_a_dark_page():
    heat_map = crossed(heads=("1", "C"), region=("window", "neighborhood")).drawings()["interactions"]()
    cells = [text.get_color() for axes in heat_map.axes for text in axes.texts]
    assert len(cells) == 4
    assert not {INK, PAPER} & set(cells)


def test_levels_that_are_too_many_leave_each_condition_a_look_of_its_own():
    heads = [f"{count}_heads_of_a_long_name" for count in range(9)]
    encoding = encode(crossed(heads=heads, region=("window", "neighborhood")).findings)
    assert not encoding.levels
    assert len({(look.color, look.marker) for look in encoding.looks.values()}) == 18


def test_labels_are_spread_no_closer_than_asked_and_no_further_than_needed():
    assert spread([0.1, 0.5, 0.9], 0.1, 0, 1) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5, 0.1], 0.1, 0, 1) == pytest.approx([0.45, 0.55, 0.1])
    assert spread([1.0, 1.0], 0.2, 0, 1) == pytest.approx([0.8, 1.0])
    crowded = spread(np.linspace(0.4, 0.6, 30).tolist(), 0.1, 0, 1)
    assert np.diff(crowded) == pytest.approx(1 / 29)
    assert spread([], 0.1, 0, 1) == []
