"""Test images to look at: judged by what the loaders of the same sets yield, and read without torch."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ablate import data
from ablate.errors import UserError

SETS = {
    "fashion_mini": {"name": "fashion_mini"},
    "synthetic": {"name": "synthetic", "channels": 3, "test": 40},
    "two channels": {"name": "synthetic", "channels": 2, "test": 40},
}


@pytest.mark.parametrize("config", SETS.values(), ids=SETS)
def test_images_in_memory_are_those_of_the_loader(config) -> None:
    positions = [37, 0, 12]
    found = data.pictures(config, positions)
    splits = data.create(config, seed=0, batch_size=8, augment={}, evaluation_batch_size=40)
    images, labels = next(splits.test.epoch(0))
    assert [one.label for one in found] == labels[positions].tolist()
    for one, image in zip(found, images[positions].numpy(), strict=True):
        shown = one.image if one.image.ndim == 2 else one.image.transpose(2, 0, 1)
        assert one.image.dtype == np.uint8
        for ours, theirs in zip(shown if shown.ndim == 3 else shown[None], image, strict=False):
            assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] == pytest.approx(1, abs=1e-5)


def test_image_files_are_whole_small_and_in_the_order_of_the_test_split(tmp_path) -> None:
    for split in ("train", "val"):
        for label, name in enumerate(("apple", "banana")):
            folder = tmp_path / "fruit" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = np.full((300, 200, 3), 100 * label + 20 * number, np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    config = {
        "name": "image_folder",
        "folder": "fruit",
        "num_classes": 2,
        "size": 16,
        "validation_per_class": 1,
    }
    found = data.pictures(config, [1, 6], tmp_path)
    assert [(one.label, int(one.image[0, 0, 0])) for one in found] == [(0, 20), (1, 140)]
    assert {one.image.shape for one in found} == {(112, 75, 3)}
    with pytest.raises(UserError, match="fewer images"):
        data.pictures(config, [8], tmp_path)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"name": "cifar10"}, "not"),
        ({"name": "fashion_scenes"}, "maps|no single images"),
        ({"name": "coco"}, "no single images"),
    ],
)
def test_what_cannot_be_shown_is_an_error_of_the_user(config, problem, tmp_path) -> None:
    with pytest.raises(UserError, match=problem):
        data.pictures(config, [0], tmp_path)


def test_no_torch_is_loaded() -> None:
    script = "import sys; from ablate import data; data.pictures({'name': 'fashion_mini'}, [3])"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
