"""Data sets in COCO's format: what is read, and one geometry for image, boxes and masks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.data import coco_files
from tests.data.coco_files import AUGMENT, FORMAT, annotation, create, file_of, load, rectangle, save, write
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision.ops import masks_to_boxes

from ablate import data
from ablate.data.coco import NAMES, CocoFormat
from ablate.data.coco_annotations import read_annotations
from ablate.data.coco_loader import (
    Chosen,
    EvaluationFiles,
    Learned,
    TrainingFiles,
    collate_learned,
    collate_shown,
    of_one_orientation,
)
from ablate.data.contract import INSTANCES, InstanceBatch, Storage, TruthBatch
from ablate.data.geometry import InstanceAugmentation, Resizing, canvas, draw, plain
from ablate.data.holdout import random_holdout
from ablate.data.shard import Shard


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with `pets/` that a test may damage."""
    return write(tmp_path)


def flat(batch: InstanceBatch) -> list[Any]:
    parts = [part for one in batch.instances for part in one]
    return [batch.images, torch.tensor(batch.sizes), torch.tensor(batch.seeds), *parts]


def same(one: InstanceBatch, other: InstanceBatch) -> bool:
    return all(torch.equal(*pair) for pair in zip(flat(one), flat(other), strict=True))


def everything(config: dict[str, Any]) -> CocoFormat:
    return CocoFormat(**{key: value for key, value in config.items() if key != "name"})


def test_facts_are_known_without_data() -> None:
    coco = data.info({"name": "coco"})
    assert (coco.num_classes, coco.things, coco.image_shape) == (80, 80, (3, 800, 1344))
    assert coco.annotations == (INSTANCES,) and not coco.fixed_size
    assert len(set(NAMES)) == 80 and (NAMES[0], NAMES[12], NAMES[-1]) == (
        "person",
        "parking meter",
        "toothbrush",
    )
    lesa = data.info({"name": "coco", "size": 1024})
    assert lesa.image_shape == (3, 1024, 1024) and lesa.fixed_size
    one = data.info({"name": "coco_format", "folder": "x", "num_classes": 1, "areas": [4, 9]})
    assert (one.things, one.areas) == (1, (4, 9))


def test_the_splits_are_disjoint_and_training_leaves_out_images_without_annotations(pets: Path) -> None:
    train, validation, test = everything(FORMAT).read(Storage(pets))
    assert len(validation.images) == 2 and len(test.images) == 8
    assert not {*train.images} & {*validation.images}
    described = load(pets / "pets", "train")
    empty = {one["id"] for one in described["images"]} - {one["image_id"] for one in described["annotations"]}
    ids = np.array(sorted(one["id"] for one in described["images"]))
    assert len(empty) == 1 and not empty & {*ids[train.images].tolist()}
    both = everything(FORMAT | {"empty_images": True}).read(Storage(pets))
    assert sorted([*both[0].images, *both[1].images]) == list(range(8))


def test_the_hold_out_is_the_same_on_every_machine() -> None:
    kept, held = random_holdout(10, 3)
    assert held.tolist() == [2, 4, 8] and sorted([*kept, *held]) == list(range(10))


def test_a_test_split_makes_the_hold_out_unnecessary(root: Path) -> None:
    described = load(root / "pets", "val")
    save(root / "pets", "test", described)
    config = FORMAT | {"test_annotations": "annotations/instances_test.json", "test_images": "val"}
    assert [len(one.images) for one in everything(config).read(Storage(root))] == [7, 8, 8]


def test_the_reference_is_pycocotools_and_is_perfect_against_itself(pets: Path) -> None:
    reference = COCO(str(file_of(pets / "pets", "val")))
    loader = create(pets, augment={}, evaluation_batch_size=3).test
    found, detections = [], []
    for batch in loader.epoch(0):
        assert isinstance(batch, TruthBatch)
        for image, size, truth in zip(*batch, strict=True):
            assert type(image) is torch.Tensor
            assert image.shape[1] % 32 == image.shape[2] % 32 == 0
            assert not image[:, size[0] :].any() and not image[:, :, size[1] :].any()
            found.append((size, truth))
    categories = sorted(reference.cats)
    for number, (size, truth) in zip(sorted(reference.imgs), found, strict=True):
        image = reference.imgs[number]
        assert truth.size == (image["height"], image["width"])
        assert size == plain(truth.size, Resizing(64, 96)).size
        entries = reference.imgToAnns[number]
        assert [categories[label] for label in truth.classes] == [one["category_id"] for one in entries]
        assert truth.boxes.tolist() == [one["bbox"] for one in entries]
        assert truth.areas.tolist() == [one["area"] for one in entries]
        assert truth.crowd.tolist() == [bool(one["iscrowd"]) for one in entries]
        for ours, entry in zip(truth.masks, entries, strict=True):
            theirs = reference.annToRLE(entry)
            assert np.array_equal(mask.decode(ours), mask.decode(theirs))
        for label, box, outline, area in zip(
            truth.classes, truth.boxes, truth.masks, truth.areas, strict=True
        ):
            if area:
                detections.append(
                    {
                        "image_id": number,
                        "category_id": categories[label],
                        "bbox": box.tolist(),
                        "segmentation": outline,
                        "score": 1.0,
                    }
                )
    for entry in reference.anns.values():  # an object without an area cannot be found
        entry["ignore"] = entry["iscrowd"] = int(entry["iscrowd"] or not entry["area"])
    for kind in ("bbox", "segm"):
        judge = COCOeval(reference, reference.loadRes(detections), kind)
        judge.evaluate(), judge.accumulate(), judge.summarize()
        assert judge.stats[0] == pytest.approx(1.0)


def test_boxes_and_masks_move_as_the_image_does(tmp_path: Path) -> None:
    """The first object is white on black; its edges move by less than a pixel in each of the resizes."""
    described = {"images": [], "annotations": [], "categories": coco_files.CATEGORIES}
    for number, (height, width) in enumerate(coco_files.SIZES):
        box = (width // 5, height // 6, width // 2, height // 2)
        pixels = np.zeros((height, width), np.uint8)
        pixels[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        described["images"].append(
            {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        )
        described["annotations"] += [
            annotation(2 * number, number, box, [rectangle(*box)]),
            annotation(2 * number + 1, number, (width - 12, -4, 20, 14), [rectangle(width - 12, -4, 20, 14)]),
        ]
    (tmp_path / "all.json").write_text(json.dumps(described))
    annotations = read_annotations(tmp_path / "all.json", tmp_path)
    chosen = Chosen(annotations, np.arange(len(described["images"])))
    files = TrainingFiles(chosen, Resizing(64, 96), InstanceAugmentation(**AUGMENT))
    seen = crops = flips = 0
    for position, seed in itertools.product(range(len(files)), range(40)):
        geometry = files.geometry(position, seed)
        one = files[position, seed, canvas([geometry.size])]
        assert isinstance(one, Learned)
        boxes, classes, masks = one.objects
        assert one.image.shape[1:] == geometry.size == masks.shape[1:]
        assert len(boxes) == len(classes) == len(masks)
        if not len(boxes):
            continue
        crops, flips, seen = crops + (geometry.crop is not None), flips + geometry.flip, seen + len(boxes)
        height, width = (
            (geometry.size[axis] / geometry.crop[2 + axis] for axis in range(2)) if geometry.crop else (0, 0)
        )
        outer = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
        assert ((boxes - outer).abs() <= 1.01 + torch.tensor([width, height] * 2)).all()
        if len(boxes) == 2:
            white = one.image[0] > 127
            inside = masks[0].bool()
            differing = (white != inside).float()
            assert differing.sum() <= 2 * (inside.any(0).sum() + inside.any(1).sum()) * (
                1 + max(height, width)
            )
    assert seen > 400 and crops > 100 and flips > 100


def test_objects_that_mmdetection_leaves_out_are_not_learned(pets: Path) -> None:
    (train, images), *_ = everything(FORMAT | {"validation_images": 1}).read(Storage(pets))
    for image in images.tolist():
        truth, chosen = train.truth(image), train.to_learn(image)
        expected = [not crowd and area > 0 for crowd, area in zip(truth.crowd, truth.areas, strict=True)]
        assert (np.array(chosen, int) - train.first[image]).tolist() == np.flatnonzero(expected).tolist()


@pytest.mark.parametrize(("workers", "same_orientation"), [(0, False), (0, True), (2, True)])
def test_batches_depend_neither_on_workers_nor_on_shards_nor_on_where_an_epoch_resumes(
    pets: Path, workers: int, same_orientation: bool
) -> None:
    augment = AUGMENT | {"same_orientation": same_orientation}
    expected = list(create(pets, augment=augment).train.epoch(3))
    assert len(expected) == 2
    for batch in expected:
        assert batch.images.shape[-2] % 32 == batch.images.shape[-1] % 32 == 0
        for image, (height, width), one in zip(batch.images, batch.sizes, batch.instances, strict=True):
            assert one.masks.shape[1:] == image.shape[1:]
            for pixels in (image, one.masks):
                assert not pixels[:, height:].any() and not pixels[:, :, width:].any()
    loader = create(pets, augment=augment, workers=workers).train
    next(iter(loader.epoch(1)))
    assert all(map(same, loader.epoch(3), expected))
    assert all(map(same, loader.epoch(3, first=1), expected[1:]))
    for rank in range(2):
        shard = Shard(rank, 2)
        loader = create(pets, augment=augment, workers=workers, shard=shard).train
        for part, whole in zip(loader.epoch(3), expected, strict=True):
            [row] = shard.rows(2)
            assert torch.equal(part.images[0], whole.images[row])  # filled up to the same size
            assert part.seeds == [whole.seeds[row]] and part.sizes == [whole.sizes[row]]
            for ours, theirs in zip(part.instances[0], whole.instances[row], strict=True):
                assert torch.equal(ours, theirs)
    assert not all(map(same, create(pets, augment=augment).train.epoch(4), expected))


def test_batches_of_one_orientation_have_every_image_once() -> None:
    drawn = [[(number * 4 + at, 7) for at in range(4)] for number in range(9)]
    found = of_one_orientation(drawn, lambda position: position % 3 == 0, torch.Generator().manual_seed(0))
    assert sorted(one for batch in found for one in batch) == [one for batch in drawn for one in batch]
    assert [len(batch) for batch in found] == [4] * 9
    assert sum(len({position % 3 == 0 for position, _ in batch}) > 1 for batch in found) <= 1
    kinds = [batch[0][0] % 3 == 0 for batch in found]
    assert kinds != sorted(kinds)


def test_images_of_one_size(pets: Path) -> None:
    splits = create(pets, augment={"horizontal_flip": 0.5}, config={"size": 64})
    assert {batch.images.shape for batch in splits.train.epoch(0)} == {(2, 3, 64, 64)}
    assert {tuple(image.shape) for batch in splits.test.epoch(0) for image in batch.images} == {(3, 64, 64)}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((375, 1242), (402, 1333)),
        ((1, 5000), (1, 1333)),
    ],
)
def test_sizes_are_those_of_mmdetection(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert plain(size, Resizing(800, 1333)).size == expected


def test_the_policy_of_elsa_is_drawn_within_its_bounds() -> None:
    policy = InstanceAugmentation(0.5, tuple(range(480, 801, 32)), 0.5)
    drawn = [draw((480, 640), Resizing(800, 1333), policy, seed) for seed in range(2000)]
    assert drawn[3] == (None, None, (608, 811), True)  # on every machine and in every process
    assert drawn[4] == ((500, 667), (39, 247, 402, 398), (743, 736), True)
    assert 0.45 < np.mean([one.flip for one in drawn]) < 0.55
    crops = [one for one in drawn if one.crop is not None]
    assert 0.45 < len(crops) / len(drawn) < 0.55
    for one in crops:
        assert one.cropped is not None and one.crop is not None
        top, left, height, width = one.crop
        assert min(one.cropped) in (400, 500, 600)
        assert 384 <= height <= 600 and 384 <= width <= 600
        assert top + height <= one.cropped[0] and left + width <= one.cropped[1]
    whole = {min(one.size) for one in drawn if one.crop is None}
    assert whole == set(range(480, 801, 32))
    assert canvas(one.size for one in drawn) <= (1344, 1344)


def test_two_thousand_objects_in_one_image(root: Path) -> None:
    described = load(root / "pets", "val")
    number = described["images"][0]["id"]
    described["annotations"] = [
        annotation(at, number, (at % 50, at // 50, 2, 3), [rectangle(at % 50, at // 50, 2, 3)])
        for at in range(2000)
    ]
    save(root / "pets", "train", described | {"images": described["images"][:1]})
    (root / "pets" / "train").rename(root / "pets" / "other")
    (root / "pets" / "val").rename(root / "pets" / "train")
    config = {
        "val_annotations": "annotations/instances_train.json",
        "val_images": "train",
        "test_annotations": "annotations/instances_train.json",
        "test_images": "train",
    }
    splits = create(root, augment={}, batch_size=1, config=config)
    [batch] = splits.train.epoch(0)
    assert len(batch.instances[0].boxes) == 2000
    [shown] = splits.test.epoch(0)
    assert len(shown.truths[0].masks) == 2000


def test_an_area_that_is_missing_is_that_of_the_mask(root: Path) -> None:
    described = load(root / "pets", "val")
    for one in described["annotations"]:
        del one["area"], one["iscrowd"]
    save(root / "pets", "val", described)
    for batch in create(root, augment={}).test.epoch(0):
        for truth in batch.truths:
            assert truth.areas.tolist() == [float(mask.area(one)) for one in truth.masks]


def test_pinning_leaves_everything_but_tensors_as_it_is(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch pins a batch before it is copied to CUDA; without a card no tensor can be pinned."""
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *_: pinned.append(self) or self)
    train, validation, _ = everything(FORMAT).read(Storage(pets))
    files = TrainingFiles(train, Resizing(64, 96), InstanceAugmentation())
    batch = collate_learned([files[at, 5, (96, 96)] for at in range(2)])
    found = pin_memory(batch)
    assert type(found) is type(batch) and len(pinned) == 4
    for mine, theirs in zip(found[4:], batch[4:], strict=True):  # PyTorch 2.9 makes tuples lists
        assert [tuple(np.ravel(one)) for one in mine] == [tuple(np.ravel(one)) for one in theirs]
    shown = collate_shown([EvaluationFiles(validation, Resizing(64, 96))[0, 0]])
    [one], [expected] = pin_memory(shown), shown
    assert one.truth.masks == expected.truth.masks and len(pinned) == 5


def test_from_a_folder_to_a_picture(ablate: Callable, tmp_path: Path) -> None:
    """A small recipe, a Swin, images of several sizes: a run, and its look."""
    write(tmp_path / "data")
    config = [f"data.{key}={value}" for key, value in FORMAT.items() if key != "name"]
    small = ("task.channels=8", "task.hidden=8", "task.proposals=20", "recipe=debug", "recipe.epochs=1")
    done = ablate(
        *("train", "op=dwconv", "task=detection", "data=coco_format", *config, *small, "recipe.batch_size=2"),
        *(
            f"infra.data_root={tmp_path / 'data'}",
            "infra.tracking=none",
            "infra.threads=1",
            "infra.workers=0",
        ),
    )
    assert done.code == 0, done.err
    (folder,) = (path.parent.name for path in tmp_path.glob("runs/*/result.json"))
    looked = ablate("look", folder)
    assert looked.code == 0, looked.err
