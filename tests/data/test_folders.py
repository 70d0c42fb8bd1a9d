"""Folders of image files: splits, seeds, and what is wrong with a folder."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ablate import data
from ablate.data.contract import Storage
from ablate.data.folders import ImageFolder
from ablate.data.shard import Shard
from ablate.errors import UserError

CLASSES = ("apple", "banana", "cherry")
CONFIG = {"name": "image_folder", "folder": "fruit", "num_classes": 3, "size": 16, "validation_per_class": 2}
AUGMENT = {
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "random_erasing": 0.5,
    "scale": [0.3, 1],
    "horizontal_flip": 0.5,
    "interpolation": "random",
}


@pytest.fixture
def root(tmp_path):
    """A data root with `fruit/train` (7 images a class) and `fruit/val` (2 a class)."""
    pixels = np.random.RandomState(0)
    for split, count in (("train", 7), ("val", 2)):
        for name in CLASSES:
            folder = tmp_path / "fruit" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(pixels.randint(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{number}.png")
    return tmp_path


def create(root, *, augment=AUGMENT, batch_size=4, **options):
    config = CONFIG | options.pop("config", {})
    return data.create(config, seed=0, batch_size=batch_size, augment=augment, data_root=root, **options)


def whole(loader, epoch=0):
    images, labels = zip(*loader.epoch(epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


def samples(root):
    config = {key: value for key, value in CONFIG.items() if key != "name"}
    return ImageFolder(**config).read(Storage(root))


def test_validation_is_held_out_of_train_and_val_serves_as_test(root):
    train, validation, test = samples(root)
    assert [len(split) for split in (train, validation, test)] == [15, 6, 6]
    assert set(train).isdisjoint(validation)
    assert sorted(label for _, label in validation) == [0, 0, 1, 1, 2, 2]
    assert all("/train/" in path for path, _ in train + validation)
    assert all("/val/" in path for path, _ in test)
    assert samples(root) == (train, validation, test)


def test_a_test_folder_makes_the_hold_out_unnecessary(root):
    (root / "fruit" / "val").rename(root / "fruit" / "test")
    for name in CLASSES:
        folder = root / "fruit" / "val" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(folder / "0.png")
    assert [len(split) for split in samples(root)] == [21, 3, 6]


def test_batches_depend_neither_on_workers_nor_on_what_ran_before(root):
    images, labels = whole(create(root).train, epoch=2)
    assert images.shape == (12, 3, 16, 16)
    assert labels.dtype == torch.int64

    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    before = random.getstate(), torch.random.get_rng_state()
    loader = create(root, workers=2).train
    next(loader.epoch(7))  # an epoch given up in its middle
    again, again_labels = whole(loader, epoch=2)
    assert torch.equal(again, images)
    assert torch.equal(again_labels, labels)
    assert random.getstate() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert not torch.equal(whole(loader, epoch=3)[0], images)
    rest = torch.cat([images for images, _ in loader.epoch(2, first=2)])  # one that goes on in its middle
    assert torch.equal(rest, images[8:])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_pixels_are_the_same_for_every_number_of_workers_and_processes(root, workers):
    expected = list(create(root).train.epoch(2))
    for shard in (Shard(), Shard(0, 2), Shard(1, 2)):
        found = list(create(root, workers=workers, shard=shard).train.epoch(2))
        for (images, labels), (all_images, all_labels) in zip(found, expected, strict=True):
            assert torch.equal(images, all_images[shard.rows(4)])
            assert torch.equal(labels, all_labels[shard.rows(4)])


def test_evaluation_is_the_normalised_centre_in_order(root):
    (path, label), *_ = samples(root).test
    Image.new("RGB", (40, 30), (255, 0, 0)).save(path)
    images, labels = next(create(root, augment={}, evaluation_batch_size=6).test.epoch(0))
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert labels[0] == label
    expected = (torch.tensor([1.0, 0, 0]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(images[0], expected[:, None, None].expand(3, 16, 16))


def test_without_augmentation_only_the_order_changes(root):
    first, second = (whole(create(root, augment={}, batch_size=15).train, epoch)[0] for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert {image.numpy().tobytes() for image in first} == {image.numpy().tobytes() for image in second}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_an_error_and_never_replaced(root, workers):
    path, _ = samples(root).test[3]
    Path(path).write_bytes(Path(path).read_bytes()[:60])
    with pytest.raises(UserError, match=r"cannot read the image .*val/banana/1\.png"):
        whole(create(root, workers=workers).test)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"num_classes": 4}}, "has 3 class folders, expected 4"),
        ({"config": {"folder": "fruits"}}, "image folder 'fruits' not found.*\n.*infra.data_root=DIR"),
        ({"config": {"validation_per_class": 7}}, "too few to hold out 7"),
        ({"augment": {"crop_padding": 2}}, "recipe.augment.crop_padding"),
        ({"augment": {"auto_augment": "rnd-m9"}}, "rnd-m9"),
        ({"augment": {"scale": [0.5, 0.1]}}, "scale is"),
        ({"augment": {"interpolation": "bicubik"}}, "did you mean 'bicubic'"),
    ],
)
def test_a_mistake_is_named_before_any_image_is_read(root, options, message):
    with pytest.raises(UserError, match=message):
        create(root, **options)


def test_splits_with_other_classes_are_refused(root):
    (root / "fruit" / "val" / "cherry").rename(root / "fruit" / "val" / "date")
    with pytest.raises(UserError, match="not those of"):
        create(root)
