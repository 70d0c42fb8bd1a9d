"""The data sets by name, and the two ways to ask for one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, cast

from ablate.configuration import read_settings
from ablate.data import verification
from ablate.data.cifar import CIFAR10, CIFAR100
from ablate.data.coco import Coco, CocoFormat, CocoSet
from ablate.data.contract import (
    Batching,
    DataInfo,
    DataSet,
    Loader,
    Picture,
    Scale,
    Splits,
    Storage,
    require_a_batch,
)
from ablate.data.fashion_mini import FashionMini
from ablate.data.fashion_mnist import FashionMNIST
from ablate.data.fashion_scenes import FashionScenes
from ablate.data.folders import FolderSet, ImageFolder, ImageNet
from ablate.data.map_folders import ADE20K, MapFolder, MapSet
from ablate.data.options import require_whole
from ablate.data.origin import default_data_root, digest_of_files, digest_of_sizes, listed
from ablate.data.shard import Shard
from ablate.data.synthetic import Synthetic
from ablate.errors import UserError
from ablate.plugins import Registry
from ablate.store import code

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DATA_SETS: Registry[type[DataSet]] = Registry("a data set")
DATA_SETS.update(
    ade20k=ADE20K,
    cifar10=CIFAR10,
    cifar100=CIFAR100,
    coco=Coco,
    coco_format=CocoFormat,
    fashion_mini=FashionMini,
    fashion_mnist=FashionMNIST,
    image_folder=ImageFolder,
    fashion_scenes=FashionScenes,
    imagenet=ImageNet,
    map_folder=MapFolder,
    synthetic=Synthetic,
)

Kind = TypeVar("Kind", bound=type)
MOST_TODAY = 50_000  # files


def register(name: str, version: str = "") -> Callable[[Kind], Kind]:
    """Register a data set: a decorator of a frozen dataclass that keeps the contract `contract.DataSet`.

    Its fields are the settings `data.<field>`: numbers, strings, booleans, tuples of strings or whole
    numbers, and None. `InMemorySet` has all of it but `info` and `read` for images that fit into memory.
    A set that reads files may have a method `files(data_root)` that returns their paths: a run records a
    digest of them.

    Args:
        name: in `data=<name>`.
        version: changed by hand where the data change though neither a text nor one of `files` does.

    Raises:
        UserError: the name is taken or breaks the rule for names, or the class is not a data set.

    Example:
        >>> @register("stripes")
        ... @dataclass(frozen=True)
        ... class Stripes(InMemorySet):
        ...     size: int = 28
    """

    def decorate(kind: Kind) -> Kind:
        needed = [part for part in ("info", "augmentation", "splits") if not hasattr(kind, part)]
        if needed or not dataclasses.is_dataclass(kind):
            lacks = f"it has no {', '.join(needed)}" if needed else "it is not a dataclass"
            raise UserError(
                f"{kind.__name__} cannot be the data set {name!r}: {lacks}",
                "put @dataclass(frozen=True) below @register, and see ablate.data.contract.DataSet",
            )
        DATA_SETS.add(name, cast("type[DataSet]", kind), version)
        return kind

    return decorate


def info(config: Mapping[str, Any]) -> DataInfo:
    """The number of classes and the image shape of a data set, without needing its data on disk.

    Args:
        config: a node of `conf/data`: `name`, and the keys that this set has.

    Raises:
        UserError: the name, a key or a value is not valid.
    """
    return _data_set(config).info


def check(
    config: Mapping[str, Any],
    augment: Mapping[str, Any],
    *,
    batch_size: int | None = None,
    data_root: Path | None = None,
    download: bool = False,
    verify: bool = True,
) -> None:
    """Refuse a data set that does not exist or is not here, or an augmentation that it does not have.

    Annotations in COCO's format and lists of label maps are checked whole, image files as `data.verify` says
    unless `verify` is false. A set that may be downloaded counts as here. `batch_size` is compared with the
    training split where its size is known.

    Raises:
        UserError: names the mistake and what is possible, or the ways to get the data.
    """
    data_set = _data_set(config)
    data_set.augmentation(augment)
    if batch_size is not None and (images := data_set.info.train_images) is not None:
        require_a_batch(batch_size, images)
    origin = getattr(data_set, "origin", None)
    root = default_data_root() if data_root is None else Path(data_root).expanduser()
    if origin is not None and not (download and origin.downloads) and origin.find(root) is None:
        raise origin.missing(root)
    listed = getattr(data_set, "training_images", None)
    if listed is not None:  # annotations are read and checked, images are not
        images = listed(Storage(root))
        if batch_size is not None:
            require_a_batch(batch_size, images)
    if verify and hasattr(data_set, "verified") and getattr(data_set, "verify", None) != verification.OFF:
        data_set.verified(Storage(root))


class Reading(TypedDict, total=False):
    """Fields of `Batching` that a caller of `create` may give by name."""

    evaluation_batch_size: int | None
    device: str | torch.device
    workers: int
    shard: Shard
    annotation: str | None


def create(
    config: Mapping[str, Any],
    *,
    seed: int,
    batch_size: int,
    augment: Mapping[str, Any],
    data_root: Path | None = None,
    download: bool = False,
    **reading: Unpack[Reading],
) -> Splits:
    """Read a data set and cut it into batches.

    Args:
        config: a node of `conf/data`: `name`, and the keys that this set has.
        seed: of the order and the augmentation of the training batches. The splits do not depend on it.
        batch_size: images in a training batch; an incomplete last batch is dropped.
        augment: of the training images; the keys are those of `augmentation.TensorAugmentation` for
            the sets held in memory, of `augmentation.FolderAugmentation` for folders of images, of
            `augmentation.MapAugmentation` for images with label maps, of `geometry.InstanceAugmentation` for
            sets in COCO's format.
        data_root: folder that holds the data sets, by default `~/.cache/ablate`.
        download: whether a missing data set may be fetched into `data_root`.
        reading: `evaluation_batch_size`, images in a validation or test batch, by default `batch_size`;
            `device`, where the batches arrive, and where the sets held in memory are kept whole, by default
            the CPU; `workers`, processes that read image files, on whose number the batches do not depend,
            by default 0; `shard`, the share of this process if several compute the run together;
            `annotation`, what images are labelled with, one of `DataInfo.annotations`, by default the set's
            own.

    Raises:
        UserError: a name, key or value is not valid; the data are missing, corrupt or fewer than a batch.
    """
    data_set = _data_set(config)
    chosen: dict[str, Any] = {
        "evaluation_batch_size": batch_size,
        "device": "cpu",
        "workers": 0,
        "annotation": data_set.info.annotation,
        **{name: value for name, value in reading.items() if value is not None},
    }
    chosen["device"] = str(chosen["device"])
    batching = Batching(seed=seed, batch_size=batch_size, **chosen)
    storage = Storage(default_data_root() if data_root is None else Path(data_root).expanduser(), download)
    return data_set.splits(augment, batching, storage)


def module_of(config: Mapping[str, Any]) -> str:
    """Return the name of the module that a data set is defined in."""
    return type(_data_set(config)).__module__


def content(
    config: Mapping[str, Any], data_root: Path | None = None, most: int | None = None
) -> dict[str, str]:
    """Return digests of a data set's files by what they are of; empty if it has none, or they are not here.

    Args:
        config: a node of `conf/data`.
        data_root: folder that holds the data sets.
        most: number of files of a folder from which on it is not looked at; all are without.

    Returns:
        `data NAME`: of their names, and of the size and the first bytes of samples; `sizes of data NAME`: of
        the sizes of all, or of very many samples. See `origin.digest_of_files` and `origin.digest_of_sizes`.
    """
    data_set, name = _data_set(config), config["name"]
    root = default_data_root() if data_root is None else data_root.expanduser()
    origin, files = getattr(data_set, "origin", None), getattr(data_set, "files", None)
    if origin is not None and (place := origin.find(root)) is not None:
        paths = listed(place, origin.contents, most)
        if paths is None:
            return {}
    elif origin is None and files is not None:
        place, paths = Path("/"), sorted(Path(path).absolute().as_posix()[1:] for path in files(root))
    else:
        return {}
    try:
        names = paths if origin is not None else [Path(path).name for path in paths]
        return {
            f"{code.DATA}{name}": digest_of_files(place, paths, names),
            f"{code.SIZES}{name}": digest_of_sizes(place, paths),
        }
    except OSError:
        return {}


@lru_cache
def _content_today(node: str, data_root: Path | None) -> dict[str, str]:
    return content(json.loads(node), data_root, MOST_TODAY)


def content_today(config: Mapping[str, Any]) -> dict[str, str]:
    """Return `content` of the data of a run's whole configuration, computed once in a process.

    Empty also if the run's data set is not known here, or has more than MOST_TODAY files, which would take
    `ablate status` too long to look at.
    """
    root = config["infra"]["data_root"]
    try:
        return _content_today(json.dumps(config["data"], sort_keys=True), Path(str(root)) if root else None)
    except (UserError, KeyError, TypeError):
        return {}


def test_split(
    config: Mapping[str, Any], *, data_root: Path | None, batch_size: int, workers: int, **preprocessing: Any
) -> Loader:
    """The test split of a folder of image files alone, prepared as a published network asks.

    Args:
        config: a node of `conf/data`.
        data_root: the data set's folder, or the one that holds it.
        batch_size: images in a batch.
        workers: processes that read image files.
        preprocessing: those of `image_loader.Preprocessing`, and `device`.

    Raises:
        UserError: a set that is not a folder of image files; missing data.
    """
    from ablate.data.image_loader import Preprocessing, test_loader

    data_set = _data_set(config)
    require_whole("batch_size", batch_size, at_least=1)
    if not isinstance(data_set, FolderSet):
        raise UserError(
            f"data set {config['name']!r} has no image files to prepare for a published network",
            "use data=imagenet or data=image_folder; `ablate train` tests its runs itself",
        )
    samples = data_set.test_samples(default_data_root() if data_root is None else data_root)
    device = preprocessing.pop("device")
    prepared = Preprocessing(**preprocessing)
    return test_loader(samples, preprocessing=prepared, batch_size=batch_size, device=device, workers=workers)


def other_images(config: Mapping[str, Any], place: Path, most: int) -> tuple[list[str], Tensor, int]:
    """Read image files that are not of a data set, prepared as its test images are.

    Args:
        config: a node of `conf/data`.
        place: a folder or an image.
        most: images that are read at most.

    Returns:
        Paths and images (N, C, H, W) of the first `most`, and the number of all.

    Raises:
        UserError: no image there, or a data set whose mean and deviation are not known.
    """
    from ablate.data import image_files
    from ablate.data.image_loader import IMAGENET

    data_set = _data_set(config)
    mean, std = (getattr(data_set, name, None) for name in Scale._fields)
    scale = IMAGENET if mean is None or std is None else Scale(mean, std)
    if scale is IMAGENET and not isinstance(data_set, (FolderSet, MapSet, CocoSet)):
        raise UserError(
            f"data={config['name']} does not say how its images are normalised",
            "give it class attributes mean and std",
        )
    paths = image_files.find(place)
    return paths[:most], image_files.prepare(paths[:most], data_set.info, scale), len(paths)


def pictures(
    config: Mapping[str, Any], positions: Sequence[int], data_root: Path | None = None
) -> list[Picture]:
    """Test images as they are stored, and their classes, by their places in the test split.

    Args:
        config: a node of `conf/data`.
        positions: of the images, in the order in which a run is tested.
        data_root: as for `create`. Nothing is downloaded.

    Raises:
        UserError: the data are not here or cannot be read, are fewer, or the set has no method `pictures`.
    """
    data_set = _data_set(config)
    root = default_data_root() if data_root is None else data_root.expanduser()
    if (read := getattr(data_set, "pictures", None)) is None:
        raise UserError(
            f"data set {config['name']!r} has no single images to show", "give it a method pictures"
        )
    try:
        found: list[Picture] = read(Storage(root), positions)
    except IndexError as error:
        raise UserError(
            f"the test split of {config['name']!r} has fewer images than the runs were tested on",
            "use the data that the runs had",
        ) from error
    return found


def _data_set(config: Mapping[str, Any]) -> DataSet:
    options = dict(config)
    name = options.pop("name", None)
    if name is None:
        raise UserError("the data configuration has no name", f"known: {', '.join(sorted(DATA_SETS.all()))}")
    return read_settings(DATA_SETS.find(str(name)), "data", options, beside=("name",))


def names() -> list[str]:
    """The data sets."""
    return sorted(DATA_SETS.all())


def defaults(name: str) -> dict[str, Any]:
    """Name and settings of a data set, of those that have a default."""
    fields = dataclasses.fields(DATA_SETS.find(name))
    given = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    return {
        "name": name,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in given.items()},
    }
