"""Batches from image files: decoded and transformed by timm in workers, normalised on the device.

timm's `create_loader` draws order and augmentation from global generators, so that an epoch depends
on what ran before it and on the number of workers. Here each image of each epoch has a seed of its
own; the transforms, the collation and the prefetching are timm's.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import torch
from PIL import Image
from timm.data import create_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.loader import PrefetchLoader, fast_collate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ablate.data.augmentation import Erasing, FolderAugmentation, erase
from ablate.data.contract import Batching, DataInfo, Samples, SampleSplits, Scale, Splits
from ablate.data.decoding import check_images, read_image
from ablate.data.policies import training_transform
from ablate.data.seeding import epoch_generator, global_generators_seeded
from ablate.data.shard import WHOLE, Shard
from ablate.errors import UserError

PREFETCH = 4  # batches that a worker has ready; a slow image then delays none of them
IMAGENET = Scale(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
SeededPosition = tuple[int, int]  # position of an image, seed of its augmentation
Batch = TypeVar("Batch")


class Files(Protocol):
    """Files that are read by position and seed; an item is an error if its file cannot be read."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, item: SeededPosition) -> Any:
        """Return an image and its label, or the error."""
        ...


class ImageFiles(Dataset[tuple[Tensor, int] | UserError]):
    """Image files as uint8 tensors (3, H, W) with their class."""

    def __init__(self, samples: Samples, transform: Callable[[Image.Image], Tensor]) -> None:
        self._samples = samples
        self._transform = transform

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, item: SeededPosition) -> tuple[Tensor, int] | UserError:
        """Return the image and its class, or the error of a file that cannot be read.

        An error raised in a worker would arrive inside the worker's traceback, see `Readable`. timm would
        put the next image in its place.
        """
        position, seed = item
        path, label = self._samples[position]
        try:
            image = read_image(path)
        except UserError as error:
            return error
        with global_generators_seeded(seed):
            return self._transform(image), label


def collate(items: list[tuple[Tensor, int] | UserError]) -> tuple[Tensor, Tensor] | UserError:
    """Make a batch as timm does; the first error instead if there is one."""
    for item in items:
        if isinstance(item, UserError):
            return item
    batch: tuple[Tensor, Tensor] = fast_collate(items)
    return batch


class Readable(Generic[Batch]):
    """A loader whose errors are raised in the main process."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def read_in_workers(
    images: Dataset[Any],
    sampler: Sampler[Any],
    collate: Callable[[list[Any]], Batch | UserError],
    *,
    device: str,
    workers: int,
) -> Readable[Batch]:
    """Read the sampler's batches of a data set in worker processes, or in this one if there are none."""
    loader = DataLoader(
        images,
        batch_sampler=sampler,
        collate_fn=collate,
        worker_init_fn=leave_signals_to_the_main_process,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator(),  # else the loader would draw from the global one
    )
    return Readable(loader)


def leave_signals_to_the_main_process(worker: int) -> None:
    """Let a worker survive what a whole process group receives: the main process ends its workers itself.

    A run that is asked to stop completes its step and writes a checkpoint, for which it needs its images.
    Only the first SIGTERM is ignored: a worker that hangs can still be terminated.
    """

    def ignore_once(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ignore_once)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


class EpochSampler(Sampler[list[SeededPosition]]):
    """The batches of the epoch that `generator` belongs to; in order if there is none."""

    def __init__(self, images: int, batch_size: int, batches: int, shard: Shard) -> None:
        self.samples = min(images, batches * batch_size)
        self._images = images
        self._batch_size = batch_size
        self._batches = batches
        self._shard = shard
        self.generator: torch.Generator | None = None
        self.first = 0  # batch that an epoch begins with, if it resumes in the middle

    @classmethod
    def whole(cls, images: int, batch_size: int, shard: Shard = WHOLE) -> EpochSampler:
        """All images, the last batch with what is left."""
        return cls(images, batch_size, math.ceil(images / batch_size), shard)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[SeededPosition]]:
        size = self._batch_size
        if self.generator is None:
            for number in self._shard.batches(self._batches, self.first):
                yield [(at, 0) for at in range(number * size, min((number + 1) * size, self._images))]
            return
        order = torch.randperm(self._images, generator=self.generator).tolist()
        seeds = torch.randint(2**32, (self._images,), generator=self.generator).tolist()
        rows = self._shard.rows(size)
        for number in range(self.first, self._batches):
            yield [(order[number * size + row], seeds[number * size + row]) for row in rows]


class Preprocessing(NamedTuple):
    """Preparation of an image, as timm's configuration of a pretrained network names it."""

    size: int  # pixels
    crop_pct: float  # share of the resized image that is cut from its centre
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


class ImageLoader:
    """A split read from image files; in order and whole for evaluation."""

    def __init__(
        self,
        images: Files,
        sampler: EpochSampler,
        *,
        device: str,
        workers: int,
        scale: Scale = IMAGENET,
        collate_fn: Callable[[list[Any]], Any] = collate,
    ) -> None:
        self.samples, self._sampler = sampler.samples, sampler
        files = cast(Dataset[Any], images)
        self._read = read_in_workers(files, self._sampler, collate_fn, device=device, workers=workers)
        self._batches = PrefetchLoader(self._read, *scale, device=torch.device(device))

    def __len__(self) -> int:
        return len(self._sampler)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in the order of their paths; see `Loader.epoch`."""
        self._sampler.first = first
        yield from self._batches


class TrainingImageLoader(ImageLoader):
    """The training split: shuffled and augmented anew in each epoch, whole batches only."""

    def __init__(
        self,
        images: Files,
        *,
        batching: Batching,
        random_erasing: float,
        collate_fn: Callable[[list[Any]], Any] = collate,
    ) -> None:
        batches = batching.training_batches(len(images))
        sampler = EpochSampler(len(images), batching.batch_size, batches, batching.shard)
        super().__init__(
            images, sampler, device=batching.device, workers=batching.workers, collate_fn=collate_fn
        )
        self._seed = batching.seed
        self._shard = batching.shard
        self._random_erasing = random_erasing

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """A random choice of whole batches; see `Loader.epoch`."""
        generator = epoch_generator(self._seed, epoch)
        self._sampler.generator, self._sampler.first = generator, first
        for number, (images, labels) in enumerate(self._batches):
            if number == 0:  # the sampler has drawn the order; now what the batches before drew
                for _ in range(first):
                    Erasing.draw(len(images) * self._shard.world, self._random_erasing, generator)
            yield erase(images, self._random_erasing, generator, self._shard), labels


def image_splits(
    info: DataInfo,
    samples: SampleSplits,
    augmentation: FolderAugmentation,
    batching: Batching,
    crop_pct: float,
) -> Splits:
    """The three splits of a folder of images; evaluation cuts `crop_pct` from the centre of a resized image.

    Raises:
        UserError: there are fewer training images than a batch holds, or an image of the other splits cannot
            be read.
    """
    to_check = [*samples.validation, *samples.test]
    check_images(to_check[batching.shard.rank :: batching.shard.world], batching.workers)
    size = info.image_shape[-1]
    to_evaluate = create_transform(size, interpolation="bicubic", crop_pct=crop_pct, use_prefetcher=True)

    def evaluation(split: Samples) -> ImageLoader:
        sampler = EpochSampler.whole(len(split), batching.evaluation_batch_size, batching.shard)
        files = ImageFiles(split, to_evaluate)
        return ImageLoader(files, sampler, device=batching.device, workers=batching.workers)

    return Splits(
        train=TrainingImageLoader(
            ImageFiles(samples.train, training_transform(size, augmentation)),
            batching=batching,
            random_erasing=augmentation.random_erasing,
        ),
        validation=evaluation(samples.validation),
        test=evaluation(samples.test),
        num_classes=info.num_classes,
        image_shape=info.image_shape,
    )


def test_loader(
    samples: Samples,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    device: str,
    workers: int,
) -> ImageLoader:
    """Load image files in order and whole, prepared as a published network expects them."""
    size, crop_pct, interpolation, mean, std = preprocessing
    transform = create_transform(size, interpolation=interpolation, crop_pct=crop_pct, use_prefetcher=True)
    return ImageLoader(
        ImageFiles(samples, transform),
        EpochSampler.whole(len(samples), batch_size),
        device=device,
        workers=workers,
        scale=Scale(mean, std),
    )
