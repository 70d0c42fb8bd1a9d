"""`fashion_scenes`: the same bytes everywhere, masks and boxes that belong together, one geometry for all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from ablate.data.augmentation import TensorAugmentation
from ablate.data.contract import OUTSIDE, Batching, Labelled, Scale, Storage
from ablate.data.fashion_mini import ARCHIVE, read_archive
from ablate.data.fashion_scenes import FashionScenes
from ablate.data.scenes import IGNORED, MOST, SIDE, Scene, scene
from ablate.data.tensor_loader import TensorLoader, TrainingTensorLoader

DIGEST = "014fe95f36a84570"


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    items = read_archive(ARCHIVE).train
    return [scene(items.images[:, 0], items.labels, (0, 0, index)) for index in range(100)]


def test_the_bytes_are_those_of_every_machine(scenes: list[Scene]) -> None:
    digest = hashlib.sha256()
    for one in scenes:
        for part in one:
            digest.update(np.ascontiguousarray(part).astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == DIGEST


def test_masks_boxes_and_maps_describe_the_same_items(scenes: list[Scene]) -> None:
    counts = set()
    for one in scenes:
        counts.add(len(one.classes))
        assert one.masks.shape == (len(one.classes), SIDE, SIDE)
        assert (one.masks.sum(0) <= 1).all()  # what is hidden belongs to the item in front
        assert ((one.map != 0) & (one.map != IGNORED) == one.masks.any(0)).all()
        for mask, label, (left, top, right, bottom) in zip(one.masks, one.classes, one.boxes, strict=True):
            assert (one.map[mask] == label + 1).all()
            inside = np.zeros_like(mask)
            inside[top:bottom, left:right] = True
            assert not (mask & ~inside).any()
            assert mask[top].any() and mask[bottom - 1].any()
            assert mask[:, left].any() and mask[:, right - 1].any()
    assert counts >= set(range(1, MOST + 1))
    assert any((one.map == IGNORED).any() for one in scenes)


def test_splits_are_as_large_as_asked(tmp_path: Path) -> None:
    small = FashionScenes(train=3, validation=2, test=1)
    found = small.read(Storage(tmp_path))
    assert [len(split.images) for split in found] == [3, 2, 1]
    assert found.train.images.shape[1:] == small.info.image_shape
    again = FashionScenes(train=2, validation=2, test=1).read(Storage(tmp_path))
    assert np.array_equal(found.train.images[:2], again.train.images)  # a scene is a function of its number
    other = FashionScenes(train=2, validation=2, test=1, seed=1).read(Storage(tmp_path))
    assert not np.array_equal(other.train.images, again.train.images)


def test_images_and_maps_are_moved_and_mirrored_alike() -> None:
    """The map is the image itself here, so that what was cropped in is 0 in one and no class in the other."""
    random = np.random.default_rng(0)
    maps = random.integers(1, 11, (8, 9, 11)).astype(np.uint8)
    maps[:, 0, 0] = IGNORED
    data = Labelled(maps[:, None].copy(), maps)
    batching = Batching(seed=1, batch_size=4, evaluation_batch_size=4, device="cpu", workers=0)
    scale = Scale((0.0,), (1 / 255,))
    moved = TrainingTensorLoader(
        data, scale, batching=batching, augmentation=TensorAugmentation(crop_padding=3, horizontal_flip=0.5)
    )
    plain = TensorLoader(data, scale, batch_size=4, device="cpu", shard=batching.shard)
    seen = 0
    for loader in (moved, plain):
        for images, labels in loader.epoch(0):
            assert labels.dtype == torch.int64
            expected = images[:, 0].round().long()
            outside = (expected == 0) | (expected == IGNORED)
            assert torch.equal(labels, torch.where(outside, OUTSIDE, expected))
            seen += int((expected == 0).sum())
    assert seen
