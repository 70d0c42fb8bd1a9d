"""Test images gained and lost: planted ones are found, drawn with the images of the data set, or left out."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ablate import data
from ablate.errors import UserError
from ablate.results import exchanged, figures, predictions
from ablate.results.exchanged import Exchange
from ablate.results.predictions import Kept, Predictions
from ablate.results.report import Options, examined, write
from ablate.store.folder import RunFolder
from ablate.studies import pictures

SEEDS = 5
CONFIG = {"name": "fashion_mini"}
NAMES = list(data.info(CONFIG).class_names)
LABELS = np.array([one.label for one in data.pictures(CONFIG, range(2000))])

Answers = dict[tuple[str, int], Predictions]


def answers(label: np.ndarray) -> Answers:
    """Predictions of three operators, each right for about three images in four."""
    found = {}
    for place, operator in enumerate(("lsa", "elsa", "dwconv")):
        for seed in range(SEEDS):
            draw = np.random.default_rng((place, seed))
            hard = np.random.default_rng(9).random(len(label))  # the same images for all
            right = draw.random(len(label)) + hard < (1.25, 1.45, 1.27)[place]
            wrong = (label + draw.integers(1, 3, len(label))) % 10
            sure = draw.uniform(0.1, 1, len(label)).astype(np.float16)
            found[operator, seed] = Predictions(label, np.where(right, label, wrong), sure, sure)
    return found


@pytest.fixture
def runs_dir(fabricate: Callable, tmp_path: Path) -> Path:
    """A study whose runs kept predictions of the test images of `fashion_mini`."""
    manifest = fabricate(
        {operator: dict.fromkeys(range(SEEDS), 80.0) for operator in ("lsa", "elsa", "dwconv")}
    )
    kept = answers(LABELS)
    for run in manifest.runs:
        path = RunFolder(tmp_path / run.signature).predictions_path
        predictions.write(path, Kept(kept[run.factors["op"], run.seed], NAMES))
    return tmp_path


def test_the_most_consistent_images_of_the_condition_that_differs_most_are_chosen(runs_dir: Path) -> None:
    kept = answers(LABELS)
    (found,) = examined(runs_dir, ["quick"]).exchanges
    assert (found.condition, found.baseline, found.pairs, found.names) == ("elsa", "lsa", SEEDS, tuple(NAMES))
    for kind, (images, sign) in enumerate(((found.gained, 1), (found.lost, -1))):
        counts: dict[int, int] = {}
        for at in range(len(LABELS)):
            changes = [
                int(kept["elsa", seed].correct[at]) - int(kept["lsa", seed].correct[at])
                for seed in range(SEEDS)
            ]
            if changes.count(sign) > SEEDS / 2:
                counts[at] = changes.count(sign) - changes.count(-sign)
        assert found.found[kind] == len(counts) > len(images) == exchanged.MOST
        shown = [counts[one.position] for one in images]
        assert shown == sorted(counts.values(), reverse=True)[: exchanged.MOST]
        for one in images:
            wrong, right = ("lsa", "elsa") if sign == 1 else ("elsa", "lsa")
            pairs = [
                seed
                for seed in range(SEEDS)
                if kept[right, seed].correct[one.position] and not kept[wrong, seed].correct[one.position]
            ]
            predicted = Counter(int(kept[wrong, seed].predicted[one.position]) for seed in pairs)
            most = {label for label, count in predicted.items() if count == max(predicted.values())}
            assert one.pairs == len(pairs) and one.label == LABELS[one.position]
            mistake, truth = (one.before, one.after) if sign == 1 else (one.after, one.before)
            assert mistake == min(most) and truth == one.label


def test_a_report_shows_the_images_of_the_data_set_with_their_classes(runs_dir: Path) -> None:
    found = examined(runs_dir, ["quick"], Options(gained=["dwconv"]))
    assert [each.condition for each in found.exchanges] == ["elsa", "dwconv"]
    paths = write(found, runs_dir, runs_dir / "page", pictures.of_run)
    assert {"gained.svg", "gained.png"} <= {path.name for path in paths}
    page = (runs_dir / "page" / "index.html").read_text(encoding="utf-8")
    assert "Test images that elsa, dwconv get right and lsa wrong" in page
    shown = exchanged.show(found.exchanges, runs_dir, pictures.of_run)
    figure = figures.exchanged(shown)
    chosen = [one for each in shown.exchanges for one in (*each.gained, *each.lost)]
    for axes, one in zip(figure.axes, chosen, strict=True):
        (drawn,) = axes.images
        (picture,) = data.pictures(CONFIG, [one.position])
        np.testing.assert_array_equal(drawn.get_array(), picture.image)
    texts = [text.get_text() for text in figure.texts]
    assert [text for text in texts if re.fullmatch(r"\d of 5 pairs", text)] == [
        f"{one.pairs} of 5 pairs" for one in chosen
    ]
    first = chosen[0]
    assert texts[1] == NAMES[first.label]
    assert " ".join(texts[2:4]).startswith(f"{NAMES[first.before]} → {NAMES[first.after]}")
    with pytest.raises(UserError, match="condition that is compared"):
        examined(runs_dir, ["quick"], Options(gained=["esla"]))


def absent(config: object, positions: object) -> list[tuple[np.ndarray, int]]:
    """A data set that is not on this machine."""
    raise UserError("ImageNet is not here", "get it")


def broken(config: object, positions: object) -> list[tuple[np.ndarray, int]]:
    """A data set of somebody's own with a mistake in it."""
    raise KeyError("labels")


def other(config: object, positions: list[int]) -> list[tuple[np.ndarray, int]]:
    """Another data set under the same name."""
    return [(np.zeros((28, 28), np.uint8), 0) for _ in positions]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "without the images of the data set"),
        (absent, "ImageNet is not here"),
        (broken, "KeyError"),
        (other, "other labels"),
    ],
)
def test_without_the_data_the_page_says_why_and_is_whole(runs_dir: Path, source, reason: str) -> None:
    paths = write(examined(runs_dir, ["quick"]), runs_dir, runs_dir / "page", source)
    assert "gained.svg" not in {path.name for path in paths}
    page = (runs_dir / "page" / "index.html").read_text(encoding="utf-8")
    (said,) = re.findall(r"Gained and lost test images are not shown: (.*)\.</p>", page)
    assert reason in said


def test_a_study_without_predictions_says_nothing(fabricate: Callable, tmp_path: Path) -> None:
    fabricate({"lsa": {0: 74.0, 1: 75.0}, "elsa": {0: 78.0, 1: 79.0}})
    found = examined(tmp_path, ["quick"])
    assert found.exchanges == ()
    write(found, tmp_path, tmp_path / "page", pictures.of_run)
    assert "Gained and lost" not in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_runs_that_were_tested_on_different_data_are_not_mixed(runs_dir: Path) -> None:
    (one,) = examined(runs_dir, ["quick"]).exchanges
    config = RunFolder(runs_dir / one.runs[0]).config_path
    config.write_text(config.read_text().replace("fashion_mini", "fashion_mnist"))
    shown = exchanged.show([one], runs_dir, pictures.of_run)
    assert shown.exchanges == () and shown.reason
    nothing = Exchange("a", "b", 3, (), (), (0, 0), (), ())
    assert exchanged.show([nothing], runs_dir, None) == exchanged.NOTHING


def test_the_verb_shows_images_without_torch(runs_dir: Path) -> None:
    code = (
        "import sys; from ablate.cli import main; "
        f"main(['report', 'quick', '--runs-dir', {str(runs_dir)!r}, '-o', 'page']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs_dir, capture_output=True, text=True, check=True
    )
    assert (runs_dir / "page" / "gained.svg").exists()
    assert not {"torch", "timm", "hydra"} & set(done.stdout.split())
