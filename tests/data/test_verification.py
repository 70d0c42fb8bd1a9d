"""Image files that cannot be read are found at submission: `data.verify` and `data.corrupt`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablate import data
from ablate.data import verification
from ablate.errors import UserError
from ablate.store.identity import signature

FIRST = ("data=image_folder", "data.folder=fruit", "data.num_classes=2", "data.size=28", "recipe=debug")
ONE = (
    "recipe.epochs=1",
    "recipe.batch_size=4",
    "data.validation_per_class=2",
    "infra.device=cpu",
    "infra.workers=0",
)
NOISE = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)


@pytest.fixture
def fruit(tmp_path: Path) -> Path:
    """A folder of two classes in three formats."""
    for split, count in (("train", 9), ("val", 3)):
        for name in ("apple", "banana"):
            folder = tmp_path / "fruit" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(NOISE).save(folder / f"{number}.{('png', 'jpg', 'webp')[number % 3]}")
    return tmp_path / "fruit"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbled(path: Path) -> None:
    path.write_bytes(b"no image" * 20)


@pytest.mark.parametrize("damage", [cut, empty, garbled])
@pytest.mark.parametrize("name", ["0.png", "1.jpg", "2.webp"])
def test_a_damaged_training_image_is_refused_at_submission_with_its_name(
    damage: Callable[[Path], None], name: str, fruit: Path, ablate: Callable, tmp_path: Path
) -> None:
    path = fruit / "train" / "banana" / name
    damage(path)
    no_end_mark = damage is cut and name == "2.webp"
    verify = "data.verify=full" if no_end_mark else "data.verify=fast"
    done = ablate("train", *FIRST, *ONE, f"infra.data_root={tmp_path}", verify)
    assert done.code == 2
    assert f"1 image cannot be read:\n  {path}: " in done.err
    assert "restore or remove them" in done.err
    assert not (tmp_path / "runs").exists()


def test_what_cannot_be_read_is_skipped_where_asked(fruit: Path, ablate: Callable, tmp_path: Path) -> None:
    for name in ("0.png", "4.jpg"):
        cut(fruit / "train" / "banana" / name)
    place = (*FIRST, *ONE, f"infra.data_root={tmp_path}")
    done = ablate("train", *place, "data.verify=full", "data.corrupt=skip")
    assert done.code == 0, done.err
    config = {
        "name": "image_folder",
        "folder": "fruit",
        "num_classes": 2,
        "verify": "full",
        "corrupt": "skip",
    }
    with pytest.warns(
        UserWarning, match=r"2 of 24 images cannot be read and are skipped, the first .*0\.png"
    ):
        splits = data.create(
            {**config, "validation_per_class": 2}, seed=0, batch_size=1, augment={}, data_root=tmp_path
        )
    assert splits.train.samples == 9 + 9 - 2 - 4
    for path in (fruit / "val" / "apple").iterdir():
        empty(path)
    done = ablate("train", *place, "data.verify=full", "data.corrupt=skip", "seed=1")
    assert done.code == 2
    assert "no image in" in done.err
    assert ablate("train", *place, "data.corrupt=skip").code == 2


def test_many_damaged_images_are_counted_and_some_are_named(fruit: Path) -> None:
    paths = sorted(map(str, (fruit / "train").rglob("*.png")))
    for path in paths:
        cut(Path(path))
    with pytest.raises(UserError) as caught:
        verification.refuse_unreadable(paths, verification.FAST)
    assert caught.value.problem.startswith("6 images cannot be read")
    assert caught.value.problem.endswith("and 1 more")
    assert not verification.unreadable(paths, verification.OFF)


def test_looking_at_files_is_no_part_of_identity_and_skipping_is() -> None:
    config = {"data": {"name": "image_folder"}, "seed": 0}
    same = [
        signature({**config, "data": {**config["data"], "verify": way}}) for way in ("fast", "full", "off")
    ]
    assert set(same) == {signature(config)}
    refusing, skipping = (
        signature({**config, "data": {**config["data"], "corrupt": way}}) for way in ("refuse", "skip")
    )
    assert refusing == signature(config) != skipping
    with pytest.raises(UserError, match="did you mean 'full'"):
        verification.check_settings("ful")
