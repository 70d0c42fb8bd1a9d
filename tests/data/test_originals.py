"""Original archives: found, missing, damaged, downloaded."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from ablate import data
from ablate.data import fashion_mnist
from ablate.data.cifar import CIFAR10
from ablate.data.contract import Storage
from ablate.data.fashion_mnist import DEBIAN_FOLDER, FashionMNIST
from ablate.data.idx import read_idx
from ablate.data.origin import Origin, digest_of_files, digest_of_sizes, listed
from ablate.errors import UserError


@pytest.fixture
def no_debian(monkeypatch):
    """Fashion-MNIST as on a machine without Debian's package."""
    origin = fashion_mnist.ORIGIN
    elsewhere = Origin(origin.title, origin.contents, origin.folders[1:], origin.ways)
    monkeypatch.setattr(fashion_mnist, "ORIGIN", elsewhere)


def create(name, root, **options):
    return data.create({"name": name}, seed=0, batch_size=8, augment={}, data_root=root, **options)


@pytest.mark.skipif(not DEBIAN_FOLDER.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_holds_a_tenth_of_every_class_out_for_validation(tmp_path):
    train, validation, test = FashionMNIST().read(Storage(tmp_path))
    assert [np.bincount(split.labels).tolist() for split in (train, validation, test)] == [
        [5400] * 10,
        [600] * 10,
        [1000] * 10,
    ]
    pixels = train.images / 255.0
    assert (round(pixels.mean(), 2), round(pixels.std(), 2)) == (0.29, 0.35)


def test_missing_fashion_mnist_names_the_places_and_the_three_ways(tmp_path, no_debian):
    with pytest.raises(UserError) as error:
        create("fashion_mnist", tmp_path)
    for part in (
        "train-images-idx3-ubyte.gz",
        str(tmp_path / "fashion-mnist"),
        "apt install dataset-fashion-mnist",
    ):
        assert part in str(error.value)
    for way in ("infra.data_root=DIR", "infra.download=true"):
        assert way in error.value.way_out


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet"])
def test_missing_data_name_the_place_and_the_setting(name, tmp_path):
    with pytest.raises(UserError) as error:
        create(name, tmp_path)
    assert str(tmp_path) in error.value.problem
    assert "infra.data_root=DIR" in error.value.way_out


def test_a_failed_download_names_its_reason_and_leaves_nothing(tmp_path, monkeypatch):
    def no_network(self, *arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(CIFAR10, "_torchvision", no_network)
    with pytest.raises(UserError, match=r"CIFAR-10 not found.*no route to host"):
        create("cifar10", tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_archive_is_named(tmp_path, no_debian):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for name in fashion_mnist.ORIGIN.contents:
        (folder / name).write_bytes(gzip.compress(bytes(1000))[:-9])
    with pytest.raises(UserError, match=r"Fashion-MNIST is corrupt: .*train-images-idx3-ubyte\.gz"):
        create("fashion_mnist", tmp_path)


def test_a_damaged_cifar_is_named_and_never_unpickled(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({"data": 1}))
    with pytest.raises(UserError, match=r"CIFAR-10 is corrupt.*MD5"):
        create("cifar10", tmp_path)


def test_cifar_keeps_its_layout_and_holds_a_tenth_of_every_class_out(tmp_path, monkeypatch):
    class Torchvision:
        def __init__(self, root, train):
            self.targets = list(range(10)) * (600 if train else 5)
            self.data = np.zeros((len(self.targets), 32, 32, 3), np.uint8)
            self.data[:, 0, 1, 2] = self.targets  # row 0, column 1, blue

    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setattr(CIFAR10, "_torchvision", lambda self, root, train: Torchvision(root, train))
    train, validation, test = CIFAR10().read(Storage(tmp_path))
    for split, per_class in ((train, 100), (validation, 500), (test, 5)):
        assert np.bincount(split.labels).tolist() == [per_class] * 10
        np.testing.assert_array_equal(split.images[:, 2, 0, 1], split.labels)


def test_idx_reads_what_the_format_says_and_refuses_the_rest(tmp_path):
    path = tmp_path / "array"
    path.write_bytes(struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(range(6)))
    np.testing.assert_array_equal(read_idx(path), np.arange(6).reshape(2, 3))
    for broken in (
        b"",
        b"\x00\x00\x08\x02",
        struct.pack(">HBBI", 0, 8, 1, 7),
        struct.pack(">HBBI", 0, 9, 1, 0),
    ):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"IDX|reshape"):
            read_idx(path)


def test_the_digest_of_files_follows_what_is_in_them_and_not_where_they_are(tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place / "train" / "cat").mkdir(parents=True)
        for number in range(300):
            (tmp_path / place / "train" / "cat" / f"{number}.png").write_bytes(bytes([number % 251]))
        (tmp_path / place / "notes.txt").write_text(place)  # not of the data set
        (tmp_path / place / "train" / ".cache").write_text(place)

    def digests(place: str) -> tuple[str, str]:
        paths = listed(tmp_path / place, ("train",))
        assert paths is not None
        return digest_of_files(tmp_path / place, paths, paths), digest_of_sizes(tmp_path / place, paths)

    here, there = digests("here"), digests("there")
    assert here == there
    (tmp_path / "there" / "train" / "cat" / "1.png").write_bytes(b"longer")  # it is no sample
    assert digests("there")[0] == here[0]
    assert digests("there")[1] != here[1]
    changed = []
    for change in (
        lambda folder: (folder / "0.png").write_bytes(b"other"),
        lambda folder: (folder / "1.png").rename(folder / "renamed.png"),
        lambda folder: (folder / "300.png").write_bytes(b""),
    ):
        change(tmp_path / "here" / "train" / "cat")
        changed.append(digests("here")[0])
    assert len({here[0], *changed}) == 4
    assert listed(tmp_path / "here", ("train",), most=300) is None
