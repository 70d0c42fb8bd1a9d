"""The images that are shipped: how many, which ones, and that they can be made again."""

import hashlib
import sys

import numpy as np
import pytest

from ablate.data.fashion_mini import ARCHIVE, make, read_archive
from ablate.data.fashion_mnist import DEBIAN_FOLDER
from ablate.errors import UserError


def hashes(split):
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in split.images]


def test_counts_are_stratified_and_the_file_is_small():
    splits = read_archive(ARCHIVE)
    per_class = {"train": 1000, "validation": 200, "test": 200}
    for name, split in splits._asdict().items():
        assert split.images.shape == (10 * per_class[name], 1, 28, 28)
        assert split.images.dtype == np.uint8
        assert np.bincount(split.labels).tolist() == [per_class[name]] * 10
    assert ARCHIVE.stat().st_size <= 7_000_000


def test_no_image_is_there_twice_within_or_across_the_splits():
    every = [digest for split in read_archive(ARCHIVE) for digest in hashes(split)]
    assert len(set(every)) == len(every) == 14_000


def test_origin_names_the_checksum_of_the_archive():
    origin = ARCHIVE.with_name("ORIGIN.md").read_text(encoding="utf-8")
    assert hashlib.sha256(ARCHIVE.read_bytes()).hexdigest() in origin
    assert "Copyright (c) 2017 Zalando SE" in ARCHIVE.with_name("LICENSE").read_text(encoding="utf-8")


@pytest.mark.skipif(not DEBIAN_FOLDER.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_making_it_again_gives_the_same_images(tmp_path, monkeypatch):
    again = tmp_path / "again.npz"
    monkeypatch.setattr(sys, "argv", ["make", "--source", str(DEBIAN_FOLDER), "--output", str(again)])
    make.main()
    # Arrays and not bytes: implementations of deflate differ.
    for shipped, made in zip(read_archive(ARCHIVE), read_archive(again), strict=True):
        np.testing.assert_array_equal(shipped.images, made.images)
        np.testing.assert_array_equal(shipped.labels, made.labels)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:100_000], lambda b: b[:5000] + b"x" * 9 + b[5009:], lambda b: b""]
)
def test_a_damaged_archive_is_one_error_with_a_way_out(tmp_path, damage):
    broken = tmp_path / "fashion_mini.npz"
    broken.write_bytes(damage(ARCHIVE.read_bytes()))
    with pytest.raises(UserError, match=r"fashion_mini is corrupt.*\n.*reinstall ablate"):
        read_archive(broken)
