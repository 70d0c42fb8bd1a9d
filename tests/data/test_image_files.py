"""What may be wrong with image files: formats, depth, damage, strange folders, signals to workers."""

import contextlib
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.readers import create_reader

from ablate import data
from ablate.data.decoding import read_image
from ablate.data.listing import FORMATS, list_images
from ablate.errors import UserError

CONFIG = {"name": "image_folder", "folder": "fruit", "num_classes": 2, "size": 8, "validation_per_class": 2}
GREY = np.linspace(0, 255, 20 * 24).astype(np.uint8).reshape(20, 24)


@pytest.fixture
def root(tmp_path):
    """A data root with `fruit/train` (8 images a class) and `fruit/val` (3 a class)."""
    for split, count in (("train", 8), ("val", 3)):
        for name in ("apple", "banana"):
            folder = tmp_path / "fruit" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(GREY).convert("RGB").save(folder / f"{number}.png")
    return tmp_path


def create(root, **options):
    return data.create(CONFIG, seed=0, batch_size=2, augment={}, data_root=root, **options)


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm"])
def test_sixteen_bits_of_grey_are_scaled_and_not_clipped(tmp_path, ending):
    path = tmp_path / f"deep.{ending}"
    Image.fromarray(GREY.astype(np.uint16) * 257).save(path)
    assert np.array_equal(np.asarray(read_image(str(path))), np.stack([GREY] * 3, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_an_image_of_any_mode_is_read_as_pillow_reads_it_or_refused_by_name(tmp_path, mode):
    path = tmp_path / "image.tiff"
    image = (
        Image.fromarray(GREY).convert("RGB").convert(mode) if mode != "I;16" else Image.new(mode, (24, 20))
    )
    image.save(path)
    if mode in ("I", "F"):
        with pytest.raises(UserError, match=rf"{path.name}: its pixels are"):
            read_image(str(path))
        return
    with Image.open(path) as file:
        assert np.array_equal(np.asarray(read_image(str(path))), np.asarray(file.convert("RGB")))


def test_every_format_that_is_listed_can_be_read(root):
    Image.init()
    folder = root / "fruit" / "train" / "apple"
    for ending in FORMATS:
        Image.fromarray(GREY).convert("RGB").save(folder / f"image{ending.upper()}")
        assert read_image(str(folder / f"image{ending.upper()}")).size == (24, 20)
    (folder / "Thumbs.db").touch()
    assert len(list_images(root / "fruit" / "train")) == 16 + len(FORMATS)
    (folder / "x.heic").touch()
    with pytest.warns(UserWarning, match=r"1 images .* are ignored .*x\.heic"):
        list_images(root / "fruit" / "train")


def test_the_list_is_timms_where_timm_has_no_opinion_on_what_is_strange(tmp_path):
    for name in ("10", "9", "Zebra", "apple", "n02", "n1", "apple 2"):
        (tmp_path / name).mkdir()
        for number in random.Random(0).sample(range(20), 12):
            (tmp_path / name / f"{'Aa'[number % 2]}{number}.jPEG").touch()
    assert list_images(tmp_path) == create_reader("", root=str(tmp_path)).samples


def test_hidden_folders_are_no_classes_and_folders_within_a_class_belong_to_it(root):
    train = root / "fruit" / "train"
    for hidden in (train / ".ipynb_checkpoints", train / ".git", train / "apple" / ".ipynb_checkpoints"):
        hidden.mkdir()
        os.link(train / "apple" / "0.png", hidden / "0.png")
    os.link(train / "apple" / "0.png", train / "apple" / "._0.png")
    (train / "apple" / "more").mkdir()
    (train / "apple" / "1.png").rename(train / "apple" / "more" / "1.png")
    assert create(root).train.samples == 12


STRANGE = {
    "loose": (lambda train: os.link(train / "apple/0.png", train / "x.png"), r"outside the class.*x\.png"),
    "loop": (lambda train: (train / "apple/loop").symlink_to(train), r"link .*apple/loop leads back"),
    "loop within": (
        lambda train: (train / "apple/loop").symlink_to(train / "apple"),
        r"link .*apple/loop leads back",
    ),
    "pipe": (lambda train: os.mkfifo(train / "apple/f.jpg"), r"apple/f\.jpg is a pipe"),
    "dangling": (
        lambda train: (train / "apple/f.jpg").symlink_to("no"),
        r"apple/f\.jpg is a link that leads",
    ),
    "empty": (
        lambda train: [path.unlink() for path in (train / "apple").iterdir()],
        r"class folder .*apple holds no images",
    ),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_folder_is_named(root, kind):
    make, message = STRANGE[kind]
    make(root / "fruit" / "train")
    with pytest.raises(UserError, match=message):
        create(root)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_damaged_image_is_one_short_error_before_training_where_possible(root, split, workers):
    for path in (root / "fruit" / split / "banana").iterdir():  # those that are not held out, too
        path.write_bytes(path.read_bytes()[:-40])
    if split == "val":
        with pytest.raises(UserError) as caught:
            create(root, workers=workers)
    else:
        with pytest.raises(UserError) as caught:
            list(create(root, workers=workers).train.epoch(0))
    assert "cannot read the image" in caught.value.problem
    assert len(str(caught.value).splitlines()) == 2
    assert caught.value.way_out == "restore or remove the file"


def test_an_image_beyond_pillows_limit_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(GREY).save(tmp_path / "huge.png")
    with pytest.raises(UserError, match=r"huge\.png: .*exceeds limit"):
        read_image(str(tmp_path / "huge.png"))


def test_workers_survive_the_first_signal_to_their_group_and_not_the_second(root):
    expected = torch.cat([images for images, _ in create(root).train.epoch(1)])
    before = multiprocessing.active_children()  # of tests before this one
    loader = create(root, workers=2).train
    epoch = loader.epoch(0)
    next(epoch), next(epoch)  # one batch of each worker: both have set their handlers
    workers = [worker for worker in multiprocessing.active_children() if worker not in before]
    assert len(workers) == 2
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        for worker in workers:
            os.kill(worker.pid, number)
    assert torch.equal(torch.cat([images for images, _ in loader.epoch(1)]), expected)
    with contextlib.suppress(RuntimeError):  # PyTorch may raise in this process as soon as a worker dies
        os.kill(workers[0].pid, signal.SIGTERM)
        workers[0].join(10)
    workers[0].join(10)
    assert workers[0].exitcode == -signal.SIGTERM
