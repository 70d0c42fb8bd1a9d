"""Data sets in COCO's format: files and settings that are refused, with their entry and a way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.data.coco_files import FORMAT, create, file_of, load, save, write

from ablate import data
from ablate.errors import UserError


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with `pets/` that a test may damage."""
    return write(tmp_path)


def first(described: Any, crowd: int = 0) -> Any:
    return next(one for one in described["annotations"] if one["iscrowd"] == crowd)


def change(name: str, value: Any, part: str = "annotations") -> Callable[[Any], Any]:
    return lambda described: described[part][0].update({name: value})


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no list of annotations": (
        lambda d: d.pop("annotations"),
        "not a file of instances .*it has info, images",
    ),
    "unknown image": (change("image_id", 999), r"annotation 74 of image 999: its image_id 999 is unknown"),
    "unknown category": (change("category_id", 5), "its category_id 5 is unknown"),
    "annotation twice": (lambda d: d["annotations"].append(d["annotations"][0]), "has the same id"),
    "image twice": (lambda d: d["images"].append(d["images"][0]), "image 100: another one has the same id"),
    "file twice": (lambda d: d["images"].append(d["images"][0] | {"id": 1}), "two images have the file_name"),
    "category twice": (
        lambda d: d["categories"].append(d["categories"][0]),
        "category 7: another one has the same id",
    ),
    "categories": (lambda d: d["categories"].append({"id": 4, "name": "x"}), "has 4 categories, expected 3"),
    "no segmentation": (change("segmentation", []), "it has no segmentation"),
    "odd polygon": (change("segmentation", [[1, 2, 3, 4, 5, 6, 7]]), "not a list of x, y"),
    "far polygon": (change("segmentation", [[1, 2, 1e12, 4, 5, 6]]), "far outside of the image"),
    "text in a polygon": (change("segmentation", [[1, 2, 3, "x", 5, 6]]), "not a list of numbers"),
    "runs of another size": (
        lambda d: first(d, 1)["segmentation"].update(size=[50, 51]),
        r"of the size \[50, 51\]",
    ),
    "too few runs": (
        lambda d: first(d, 1)["segmentation"]["counts"].pop(),
        "counts of .* pixels, the image has 2500",
    ),
    "broken string": (
        change("segmentation", {"size": [40, 60], "counts": "abc"}),
        "its run-length encoding has counts of|COCO's alphabet",
    ),
    "no box": (change("bbox", [1, 2, 3]), r"its bbox is \[1, 2, 3\], not"),
    "not a number": (change("bbox", [1, 2, 3, float("nan")]), "its bbox is"),
    "area": (change("area", "large"), "its area is 'large'"),
    "crowd": (change("iscrowd", 2), "its iscrowd is 2"),
    "width": (change("width", None, "images"), "image 100: its width is None, not a whole number"),
    "nothing wide": (change("width", 0, "images"), "its size is 0×40"),
    "no objects": (lambda d: d["annotations"].clear(), "has no objects with an area"),
    "crowds alone": (lambda d: [one.update(iscrowd=1) for one in d["annotations"]], "has no objects with an"),
    "points of a polygon apart": (
        change("segmentation", [[1, 2], [5, 2], [5, 9]]),
        "none of its polygons has three points",
    ),
    "a list as id": (change("image_id", [1]), r"its image_id is \[1\], not a whole number"),
    "a huge number": (change("area", 10**400), "its area is 1000"),
    "a huge image": (change("width", 10**9, "images"), "its size is 1000000000×40"),
    "huge runs": (change("segmentation", {"size": [40, 60], "counts": [10**30]}), "nor numbers of pixels"),
    "missing image": (change("file_name", "z.jpg", "images"), r"1 of 8 images of .* the first z\.jpg"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_contradicts_itself_is_refused_with_its_entry(root: Path, kind: str) -> None:
    spoil, message = WRONG[kind]
    described = load(root / "pets", "val")
    spoil(described)
    save(root / "pets", "val", described)
    with pytest.raises(UserError, match=message) as caught:
        create(root)
    assert "instances_val.json" in caught.value.problem
    assert caught.value.way_out


def test_other_faults_of_files_are_named(root: Path) -> None:
    folder = root / "pets"
    described = load(folder, "val")
    others = described | {"categories": [*described["categories"][:2], {"id": 90, "name": "fish"}]}
    save(folder, "val", others)
    with pytest.raises(
        UserError, match=r"categories of .*val.json are not those of .*train.json: 90, 'bird'"
    ):
        create(root)
    file_of(folder, "val").write_text(json.dumps(described)[:-5])
    with pytest.raises(UserError, match="not a readable JSON file"):
        create(root)
    save(folder, "val", [])
    with pytest.raises(UserError, match="it has list"):
        create(root)
    file_of(folder, "val").unlink()
    for ask in (lambda: create(root), lambda: data.check(FORMAT, {}, data_root=root)):
        with pytest.raises(UserError, match=r"'pets' in COCO's format not found: .*\n.*infra.data_root=DIR"):
            ask()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"validation_images": 8}}, "too few to hold out 8"),
        ({"config": {"size": 50}}, "data.size=50 is not a multiple of 32"),
        ({"config": {"size": 64}}, "short_sides has no effect with data.size=64"),
        (
            {"config": {"size": 64}, "augment": {"same_orientation": True}},
            r"same_orientation has no effect.*\n.*same_orientation=false",
        ),
        ({"config": {"short_side": 100}}, "data.short_side=100 is above data.long_side=96"),
        ({"config": {"test_images": "val"}}, "give both, or neither"),
        ({"config": {"areas": [9, 4]}}, r"data.areas is \[9, 4\]"),
        ({"augment": {"short_sides": [100]}}, "100, more than data.long_side=96"),
        ({"augment": {"crop_sides": [9, 4]}}, "the shortest and the longest side"),
        ({"augment": {"color_jitter": 0.4}}, "recipe.augment.color_jitter"),
        ({"batch_size": 6}, "more than the 5 training images"),
    ],
)
def test_settings_that_cannot_be_are_refused(pets: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create(pets, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_of_another_size_is_named(root: Path, workers: int) -> None:
    Image.new("RGB", (60, 41)).save(root / "pets" / "val" / "val0.jpg")
    with pytest.raises(
        UserError, match=r"val0\.jpg is stored with 60×41 pixels, its annotations are for 60×40"
    ):
        create(root, workers=workers)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (40, 60)).save(root / "pets" / "val" / "val0.jpg", exif=turned)
    with pytest.raises(UserError, match=r"40×60 pixels.*EXIF, which is not applied\n.*auto-orient"):
        create(root, workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_training_image_is_one_error(root: Path, workers: int) -> None:
    for path in (root / "pets" / "train").glob("*.jpg"):
        path.write_bytes(path.read_bytes()[:200])
    config = {
        "val_images": "val",
        "test_annotations": "annotations/instances_val.json",
        "test_images": "val",
    }
    loader = create(root, workers=workers, config=config).train
    with pytest.raises(UserError, match="cannot read the image"):
        list(loader.epoch(0))
