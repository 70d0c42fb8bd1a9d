"""Segmentation of image files: ways of evaluation against naive ones, and runs through the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image
from tests.training.interrupted import StopAfter

from ablate.configuration import conf_dir
from ablate.data import MapBatch
from ablate.execution.execute import execute
from ablate.store.folder import RunFolder
from ablate.store.manifest import load
from ablate.tasks import get
from ablate.tasks.inference import Evaluation, scores
from ablate.training.progress import Silent

SIZES = ((40, 60), (20, 16), (9, 90), (33, 47))
TINY = (
    *("task=segmentation", "data=map_folder", "recipe=upernet_160k", "task.channels=8"),
    *("task.auxiliary_channels=8", "data.num_classes=3", "data.validation_images=2", "data.size=32"),
    *("data.short_side=32", "data.long_side=64", "recipe.batch_size=2", "recipe.iterations=5"),
    *("recipe.warmup_iterations=1", "recipe.precision=float32", "infra.threads=1", "infra.workers=0"),
)


class Convolution(torch.nn.Module):
    """A network whose logits depend on neighbouring pixels, and on left and right."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 5, padding=2)
        self.classes, self.evaluation = 4, Evaluation()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(images)
        return logits


@pytest.fixture
def network() -> Iterator[Convolution]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield Convolution().double()


def test_one_window_is_the_whole_and_so_is_one_scale(network: Convolution) -> None:
    images = torch.randn(2, 3, 20, 30, dtype=torch.float64)
    whole = scores(network, images, (24, 36), (20, 30), Evaluation())
    expected = F.interpolate(
        network(F.interpolate(images, (24, 36), mode="bilinear")), (20, 30), mode="bilinear"
    )
    torch.testing.assert_close(whole, expected)
    slid = scores(network, images, (24, 36), (20, 30), Evaluation("slide", crop=36, stride=36))
    assert torch.equal(slid, whole)
    twice = scores(network, images, (24, 36), (20, 30), Evaluation(scales=(1.0, 1.0)))
    torch.testing.assert_close(twice, whole.log_softmax(1))


@pytest.mark.parametrize(("crop", "stride"), [(8, 5), (8, 8), (16, 3), (64, 7)])
def test_windows_cover_the_image_and_their_logits_are_averaged(
    network: Convolution, crop: int, stride: int
) -> None:
    """mmsegmentation's loops, pixel by pixel."""
    images = torch.randn(1, 3, 21, 34, dtype=torch.float64)
    found = scores(network, images, (21, 34), (21, 34), Evaluation("slide", crop=crop, stride=stride))
    per_pixel: dict[tuple[int, int], list[torch.Tensor]] = {}
    for row in range(0, 21, stride):
        for column in range(0, 34, stride):
            if (row and row + crop - stride >= 21) or (column and column + crop - stride >= 34):
                continue  # the window before has reached the end
            top, left = max(min(row, 21 - crop), 0), max(min(column, 34 - crop), 0)
            logits = network(images[:, :, top : top + crop, left : left + crop])[0]
            for i in range(logits.shape[1]):
                for j in range(logits.shape[2]):
                    per_pixel.setdefault((top + i, left + j), []).append(logits[:, i, j])
    assert len(per_pixel) == 21 * 34
    for (i, j), values in per_pixel.items():
        torch.testing.assert_close(found[0, :, i, j], torch.stack(values).mean(0))


def test_probabilities_are_averaged_over_scales_and_mirror_images(network: Convolution) -> None:
    images = torch.randn(1, 3, 12, 16, dtype=torch.float64)
    evaluation = Evaluation(scales=(0.5, 1.25), flip=True)
    found = scores(network, images, (10, 15), (12, 16), evaluation)
    parts = []
    for height, width in ((5, 8), (13, 19)):  # 12.5 and 18.75 rounded, 7.5 up
        small = F.interpolate(images, (height, width), mode="bilinear")
        parts.append(F.interpolate(network(small), (12, 16), mode="bilinear").softmax(1))
        mirrored = F.interpolate(network(small.flip(-1)), (12, 16), mode="bilinear").softmax(1)
        parts.append(mirrored.flip(-1))
    torch.testing.assert_close(found, (sum(parts) / 4).log())


def test_a_symmetric_image_has_symmetric_scores_with_flip_only(network: Convolution) -> None:
    half = torch.randn(1, 3, 12, 8, dtype=torch.float64)
    images = torch.cat([half, half.flip(-1)], -1)
    found = scores(network, images, (12, 16), (12, 16), Evaluation(flip=True))
    torch.testing.assert_close(found, found.flip(-1))
    alone = scores(network, images, (12, 16), (12, 16), Evaluation())
    assert not torch.allclose(alone, alone.flip(-1))


class Files:
    """A loader of two batches of images of different sizes."""

    samples = 3

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.items = []
        for height, width in ((6, 9), (8, 8), (600, 500)):  # the last one is compared in bands
            image = torch.randn(3, height, width, generator=generator)
            labels = torch.randint(-1, 4, (height, width), generator=generator)
            self.items.append((image, labels, (12, 10)))

    def __len__(self) -> int:
        return 2

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Any]:
        for part in (self.items[:2], self.items[2:]):
            yield MapBatch(*map(list, zip(*part, strict=True)))


def test_pixels_are_counted_at_the_size_of_the_map() -> None:
    torch.manual_seed(0)
    network, loader = Convolution(), Files()
    found = get("segmentation").evaluate(network, loader, torch.autocast("cpu", enabled=False)).metrics
    losses, hits, unions, right, labelled = [], np.zeros(4), np.zeros(4), 0, 0
    for image, labels, size in loader.items:
        with torch.no_grad():
            logits = network(F.interpolate(image[None], size, mode="bilinear"))
            logits = F.interpolate(logits, labels.shape, mode="bilinear")
        losses.append(float(F.cross_entropy(logits, labels[None], ignore_index=-1, reduction="none").mean()))
        predicted, truth = logits[0].argmax(0).numpy(), labels.numpy()
        predicted, truth = predicted[truth >= 0], truth[truth >= 0]
        for label in range(4):
            hits[label] += ((predicted == label) & (truth == label)).sum()
            unions[label] += ((predicted == label) | (truth == label)).sum()
        right, labelled = right + (predicted == truth).sum(), labelled + len(truth)
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["miou"] == pytest.approx(100 * np.mean(hits / unions), abs=1e-4)
    assert found["pixel_accuracy"] == pytest.approx(100 * right / labelled, abs=1e-4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with `maps/`: 6 images for training, 4 for test, of stripes that say their label."""
    for split, count in (("train", 6), ("val", 4)):
        for kind in ("images", "labels"):
            (tmp_path / "data" / "maps" / kind / split).mkdir(parents=True)
        for number in range(count):
            height, width = SIZES[number % 4]
            labels: NDArray[Any] = np.zeros((height, width), np.uint8)
            labels[:, width // 3 :] = 1
            labels[:, 2 * width // 3 :] = 2
            labels[0] = 255
            pixels = np.stack([labels * 80] * 3, -1).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data/maps/images" / split / f"{number}.jpg")
            Image.fromarray(labels).save(tmp_path / "data/maps/labels" / split / f"{number}.png")
    return tmp_path / "data"


def test_from_files_to_a_report_with_as_many_steps_as_iterations(
    root: Path, ablate: Callable, tmp_path: Path
) -> None:
    several = ("task.evaluation.scales=[0.5,1]", "task.evaluation.flip=true")
    slide = ("task.evaluation.mode=slide", "task.evaluation.crop=32", "task.evaluation.stride=20")
    for name, how in (("s", several), ("t", slide)):
        done = ablate("train", *TINY, *how, f"study.name={name}", f"infra.data_root={root}", "op=elsa")
        assert done.code == 0, done.err
        planned = load(tmp_path / "runs", name)
        folder = RunFolder(tmp_path / "runs" / planned.runs[0].signature)
        result = folder.result()
        assert result is not None
        assert 0 <= result["test_miou"] <= result["test_pixel_accuracy"] <= 100
        assert [line["step"] for line in folder.metrics()] == [2, 4, 5]  # two steps per epoch
        assert folder.status()["epochs"] == 3
        assert "3/3" in done.err
    assert ablate("report", "s").code == 0
    assert ablate("look", planned.runs[0].signature).code == 0


def test_a_run_interrupted_in_its_last_epoch_ends_with_the_same_bits(root: Path, tmp_path: Path) -> None:
    given = ("op=dwconv", f"infra.data_root={root}", "infra.device=cpu", "host.drop_path_rate=0.2")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("train", [*TINY, *given]), resolve=True)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    execute(tmp_path / "whole", config, Silent())
    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path / "parts", config, StopAfter(4))
    execute(tmp_path / "parts", config, Silent())
    whole, parts = (RunFolder(tmp_path / name) for name in ("whole", "parts"))
    assert [line["step"] for line in whole.metrics()] == [2, 4, 5]
    assert parts.metrics_path.read_bytes() == whole.metrics_path.read_bytes()


REFUSED = {
    "a mode": (["task.evaluation.mode=slid"], "did you mean 'slide'?"),
    "gaps": (
        ["task.evaluation.mode=slide", "task.evaluation.crop=9"],
        "use task.evaluation.stride=9 or less",
    ),
    "no scale": (["task.evaluation.scales=[]"], "positive factors"),
    "a setting": (["+task.evaluation.scale=2"], "did you mean 'task.evaluation.scales'?"),
    "an operator of one map": (["op=lesa"], "is built for one size of map"),
    "a recipe for images in memory": (
        ["recipe.augment={crop_padding: 2}"],
        "recipe.augment.crop_padding=2 is for another kind of data set",
    ),
    "missing data": (["data.folder=nothing"], "map folder 'nothing' not found"),
    "two lengths": (["recipe.epochs=3"], "recipe.epochs=3 with recipe.iterations=5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_way_out(case: str, root: Path, ablate: Callable, tmp_path: Path) -> None:
    overrides, told = REFUSED[case]
    given = [one for one in TINY if not (case.startswith("a recipe") and one.startswith("recipe"))]
    done = ablate("train", "op=dwconv", *given, f"infra.data_root={root}", *overrides)
    assert done.code == 2, done.err
    assert told in done.err
    assert "→" in done.err
    assert not [*tmp_path.glob("runs/*/config.yaml")]
