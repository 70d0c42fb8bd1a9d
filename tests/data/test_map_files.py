"""Images with label maps: splits, geometry, seeds, and every fault named."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ablate import data
from ablate.data import OUTSIDE, MapBatch, Splits
from ablate.data.augmentation import MapAugmentation
from ablate.data.decoding import ORIENTATION
from ablate.data.map_files import Labels, pair, read_map
from ablate.data.map_loader import MapTransform, Sides, distorted
from ablate.data.shard import Shard
from ablate.errors import UserError

CONFIG = {
    **{"name": "map_folder", "folder": "m", "num_classes": 4, "validation_images": 2},
    **{"size": 32, "short_side": 32, "long_side": 128},
}
AUGMENT = {
    **{"scale": [0.5, 2.0], "random_crop": True, "most_of_one_class": 0.75},
    **{"horizontal_flip": 0.5, "photometric": True},
}
GREY = 60  # an image's value for each label


def write(root: Path, split: str, name: str, labels: NDArray[Any], kinds: tuple[str, str]) -> None:
    """Write a label map, and an image whose values say the labels."""
    for kind in kinds:
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    image = np.stack([(labels * GREY).astype(np.uint8)] * 3, -1)
    Image.fromarray(image).save(root / kinds[0] / split / f"{name}.bmp")
    Image.fromarray(labels).save(root / kinds[1] / split / f"{name}.png")


def blocks(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    coarse = np.random.RandomState(seed).randint(0, 4, (height // 8 + 1, width // 8 + 1))
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with `m/{images,labels}`: 9 for training, 3 for test; some small, one a strip."""
    sizes = ((40, 60), (20, 16), (90, 5), (33, 70), (64, 64))
    for split, count in (("train", 9), ("val", 3)):
        for number in range(count):
            write(
                tmp_path / "m", split, f"{number}", blocks(number, *sizes[number % 5]), ("images", "labels")
            )
    return tmp_path


def create(root: Path, **options: Any) -> Splits:
    config = CONFIG | options.pop("config", {})
    return data.create(config, data_root=root, **{"seed": 0, "batch_size": 3, "augment": AUGMENT, **options})


def test_validation_is_held_out_and_val_is_the_test_unless_there_is_one(root: Path) -> None:
    splits = create(root)
    assert [splits.train.samples, splits.validation.samples, splits.test.samples] == [6, 2, 3]
    for kind in ("images", "labels"):
        (root / "m" / kind / "val").rename(root / "m" / kind / "test")
    write(root / "m", "val", "only", blocks(3, 20, 20), ("images", "labels"))
    splits = create(root)
    assert [splits.train.samples, splits.validation.samples, splits.test.samples] == [9, 1, 3]


def test_evaluation_yields_whole_images_and_maps_as_they_are_stored(root: Path) -> None:
    (batch,) = create(root).test.epoch(0)
    assert isinstance(batch, MapBatch)
    assert batch.sizes == [(32, 48), (40, 32), (128, 7)]  # 90×5 is limited by its long side
    for number, (image, labels) in enumerate(zip(batch.images, batch.maps, strict=True)):
        expected = blocks(number, *((40, 60), (20, 16), (90, 5))[number])
        assert np.array_equal(labels.numpy(), expected)
        red = (image[0] * 0.229 + 0.485) * 255
        np.testing.assert_allclose(red.numpy(), expected * GREY, atol=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_image_and_map_have_one_geometry(seed: int) -> None:
    """Each pixel of the image says the label, wherever it went; at edges the resized image mixes labels."""
    labels = blocks(seed, 25, 35).repeat(2, 0).repeat(2, 1)
    image = torch.from_numpy(np.stack([labels * GREY] * 3))
    augmentation = MapAugmentation((0.5, 2.0), True, 0.75, 0.5, photometric=False)
    pixels, found = MapTransform(Sides(48, 40, 160), augmentation)(
        image, torch.from_numpy(labels.astype(np.int16)), seed
    )
    assert pixels.shape == (3, 48, 48)
    inside = found != OUTSIDE
    assert all(colour == [124, 116, 104] for colour in pixels[:, ~inside].T.tolist())
    said = (pixels[0].float() / GREY).round()
    assert (said == found)[inside].float().mean() > 0.9
    around = found.unfold(0, 5, 1).unfold(1, 5, 1).flatten(2)  # (44, 44, 25)
    flat = (around.amin(2) == around.amax(2)) & inside[2:-2, 2:-2]
    assert flat.sum() > 50
    assert (said == found)[2:-2, 2:-2][flat].all()


def test_one_class_fills_no_more_of_a_crop_than_allowed_where_that_is_possible() -> None:
    labels = torch.zeros(64, 64, dtype=torch.int16)
    labels[:, 32:] = 1
    image = labels.to(torch.uint8).expand(3, -1, -1)
    shares = {}
    for most in (1.0, 0.75):
        transform = MapTransform(Sides(32, 64, 64), MapAugmentation(None, True, most))
        crops = [transform(image, labels, seed)[1] for seed in range(40)]
        shares[most] = [
            float(torch.stack([crop == 0, crop == 1]).float().mean((1, 2)).max()) for crop in crops
        ]
    assert max(shares[1.0]) == 1
    assert sum(share >= 0.75 for share in shares[0.75]) <= 1  # ten crops miss with a chance of 1 in 400


def test_distortion_is_of_colours_only_and_repeats() -> None:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    seen = [distorted(image, torch.Generator().manual_seed(seed)) for seed in range(30)]
    assert all(one.dtype == torch.uint8 and one.shape == image.shape for one in seen)
    assert len({one.numpy().tobytes() for one in seen}) > 15
    assert torch.equal(seen[7], distorted(image, torch.Generator().manual_seed(7)))


def test_without_augmentation_the_crop_is_the_centre(root: Path) -> None:
    for number in range(9):
        write(root / "m", "train", f"{number}", blocks(1, 32, 64), ("images", "labels"))
    _, maps = next(create(root, augment={}).train.epoch(0))
    assert np.array_equal(maps[0].numpy(), blocks(1, 32, 64)[:, 16:48])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_neither_on_workers_nor_processes_nor_on_where_an_epoch_resumes(
    root: Path, workers: int
) -> None:
    expected = list(create(root, batch_size=2).train.epoch(2))
    random.seed(9)
    torch.manual_seed(9)
    for shard in (Shard(), Shard(0, 2), Shard(1, 2)):
        loader = create(root, batch_size=2, workers=workers, shard=shard).train
        next(loader.epoch(7))  # an epoch given up in its middle
        for first in (0, 2):
            for (images, maps), (all_images, all_maps) in zip(
                loader.epoch(2, first), expected[first:], strict=True
            ):
                assert torch.equal(images, all_images[shard.rows(2)])
                assert torch.equal(maps, all_maps[shard.rows(2)])
    assert not torch.equal(next(loader.epoch(3))[0], expected[0][0])


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16"])
def test_grey_and_palette_maps_are_numbers(tmp_path: Path, mode: str) -> None:
    labels = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)
    image = Image.fromarray(labels.astype(np.uint16) if mode == "I;16" else labels)
    if mode == "P":
        image.putpalette([200, 0, 0, 0, 200, 0])
    if mode == "1":
        image = Image.fromarray(labels.astype(bool))
    image.save(tmp_path / "a.png")
    assert read_map(str(tmp_path / "a.png"), Labels(2, 0, 255)).tolist() == labels.tolist()


def test_labels_below_the_offset_and_the_ignored_one_are_no_class() -> None:
    given = np.array([[0, 1, 2, 255]], np.uint8)
    assert Labels(2, 1, 255).classes(given).tolist() == [[OUTSIDE, 0, 1, OUTSIDE]]
    with pytest.raises(ValueError, match="255, which belong to no class: 2 classes are the labels 1 to 2"):
        Labels(2, 1).classes(given)


def test_ade20k_has_its_layout_its_hold_out_and_no_class_other(tmp_path: Path) -> None:
    base = tmp_path / "ADEChallengeData2016"
    labels = np.array([[0, 1, 150]] * 40, np.uint8).repeat(20, 1)
    for split, count in (("training", 6), ("validation", 2)):
        for number in range(count):
            write(base, split, f"ADE_{number}", labels, ("images", "annotations"))
    config = {"name": "ade20k", "size": 32, "validation_images": 2}
    assert data.info(config).num_classes == 150
    data.check(config, AUGMENT, data_root=tmp_path)
    splits = data.create(config, seed=0, batch_size=2, augment={}, data_root=tmp_path)
    assert [splits.train.samples, splits.validation.samples, splits.test.samples] == [4, 2, 2]
    (batch,) = splits.test.epoch(0)
    assert batch.maps[0][0, ::20].tolist() == [OUTSIDE, 0, 149]
    assert batch.sizes == [(512, 768)] * 2
    with pytest.raises(UserError, match=r"ADE20K not found.*images/training"):
        data.check(config, AUGMENT, data_root=tmp_path / "elsewhere")


def remove(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def put(path: str, image: Image.Image) -> Callable[[Path], None]:
    return lambda root: image.save(root / path)


def truncated(path: str) -> Callable[[Path], None]:
    def cut(root: Path) -> None:
        noise = np.random.RandomState(0).randint(0, 4, (40, 60)).astype(np.uint8)
        Image.fromarray(noise).save(root / path)
        (root / path).write_bytes((root / path).read_bytes()[:100])

    return cut


def turned(root: Path) -> None:
    image = Image.open(root / "images/train/0.bmp").convert("RGB")
    (root / "images/train/0.bmp").unlink()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image.save(root / "images/train/0.jpg", exif=exif)
    Image.fromarray(np.zeros((60, 40), np.uint8)).save(root / "labels/train/0.png")


def labelled(value: int) -> Image.Image:
    return Image.fromarray(np.full((40, 60), value, np.uint8))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "image without map": (remove("labels/train/3.png"), r"1 of 9 images .* no label map, the first .*3.bmp"),
    "map without image": (remove("images/val/1.bmp"), r"1 label maps in .* have no image, the first .*1.png"),
    "another size": (put("labels/train/0.png", Image.new("L", (60, 41))), r"0.png has 41×60 .*0.bmp 40×60"),
    "EXIF orientation": (turned, r"has 60×40 pixels.*0.jpg 40×60\n.*EXIF orientation, which is ignored"),
    "label beyond": (put("labels/train/0.png", labelled(4)), r"0.png: it has the labels 4, .* labels 0 to 3"),
    "colours": (put("labels/val/0.png", Image.new("RGB", (60, 40))), r"0.png: it has RGB pixels"),
    "no PNG": (put("labels/train/x.jpg", labelled(0)), r"x.jpg is not a PNG file"),
    "one name": (put("images/train/0.jpg", labelled(0)), r"would have the same label map"),
    "damaged map": (truncated("labels/train/0.png"), r"cannot read the label map .*0.png"),
    "damaged image": (truncated("images/val/0.bmp"), r"cannot read the image .*0.bmp"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_before_training(fault: str, root: Path) -> None:
    harm, message = FAULTS[fault]
    harm(root / "m")
    with pytest.raises(UserError, match=message) as refused:
        create(root)
    assert refused.value.way_out


def test_a_training_image_that_is_damaged_is_named_when_it_is_read(root: Path) -> None:
    path = root / "m" / "images" / "train" / "0.bmp"
    path.write_bytes(path.read_bytes()[:-50])
    splits = create(root, batch_size=7)
    with pytest.raises(UserError, match=r"cannot read the image .*0.bmp"):
        list(splits.train.epoch(0))


@pytest.mark.parametrize(
    ("config", "augment", "message"),
    [
        ({"num_classes": 1}, {}, "count the background as a class"),
        ({"ignored": 3}, {}, "data.ignored=3 is also the label of a class"),
        ({"long_side": 16}, {}, "data.long_side is 16"),
        ({"validation_images": 9}, {}, "too few to hold out 9"),
        ({"folder": "n"}, {}, "map folder 'n' not found"),
        ({}, {"scale": [2.0, 0.5]}, "two positive factors in ascending order"),
        ({}, {"most_of_one_class": 0.5}, "random_crop=true"),
        ({}, {"crop_padding": 2}, "recipe.augment.crop_padding=2 is for another kind"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be(root: Path, config: Any, augment: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create(root, config=config, augment=augment)


def test_folders_within_the_splits_are_read(tmp_path: Path) -> None:
    write(tmp_path, "train/city", "a", blocks(0, 8, 8), ("images", "labels"))
    write(tmp_path, "train", "a", blocks(0, 8, 8), ("images", "labels"))
    found = pair(tmp_path / "images/train", tmp_path / "labels/train")
    assert [Path(path).relative_to(tmp_path / "labels/train").as_posix() for _, path in found] == [
        "a.png",
        "city/a.png",
    ]
