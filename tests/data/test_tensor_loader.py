"""Batches of the sets in memory: what they depend on, and what they hold."""

import pytest
import torch

from ablate import data
from ablate.data.shard import Shard
from ablate.errors import UserError

SYNTHETIC = {"name": "synthetic", "train": 70, "validation": 21, "test": 13}
AUGMENT = {"crop_padding": 2, "horizontal_flip": 0.5, "random_erasing": 0.3}


def create(config=SYNTHETIC, *, seed=0, batch_size=16, augment=AUGMENT, **options):
    return data.create(config, seed=seed, batch_size=batch_size, augment=augment, **options)


def whole(loader, epoch=0):
    images, labels = zip(*loader.epoch(epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_training_drops_the_incomplete_batch_and_evaluation_keeps_every_image():
    splits = create(evaluation_batch_size=10)
    for loader, batches in (
        (splits.train, [16] * 4),
        (splits.validation, [10, 10, 1]),
        (splits.test, [10, 3]),
    ):
        assert [len(labels) for _, labels in loader.epoch(0)] == batches
        assert len(loader) == len(batches)
        assert loader.samples == sum(batches)


def test_an_epoch_that_goes_on_in_its_middle_draws_what_it_would_have():
    splits = create(evaluation_batch_size=10)
    for loader in (splits.train, splits.validation):
        images, _ = whole(loader, epoch=3)
        rest = torch.cat([images for images, _ in loader.epoch(3, first=2)])
        assert torch.equal(rest, images[2 * loader.batch_size :])


def test_batches_are_a_function_of_seed_and_epoch_alone():
    torch.manual_seed(1)
    images, labels = whole(create(seed=3).train, epoch=5)
    torch.manual_seed(2)
    again = create(seed=3).train
    whole(again, epoch=4)  # what ran before leaves no trace
    state = torch.random.get_rng_state()
    assert torch.equal(whole(again, epoch=5)[0], images)
    assert torch.equal(whole(again, epoch=5)[1], labels)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(whole(again, epoch=6)[0], images)
    assert not torch.equal(whole(create(seed=4).train, epoch=5)[0], images)


def test_an_epoch_is_a_permutation_of_the_training_images():
    splits = create(batch_size=70, augment={})
    first, second = (whole(splits.train, epoch)[0].flatten(1).sum(1) for epoch in (0, 1))
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.sort().values, second.sort().values)


def test_images_are_normalised_with_the_statistics_of_the_set():
    splits = create({"name": "fashion_mini"}, batch_size=1000, augment={})
    images, labels = next(splits.train.epoch(0))
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert images.shape == (1000, *splits.image_shape)
    assert abs(images.mean()) < 0.05
    assert abs(images.std() - 1) < 0.05
    torch.testing.assert_close(images.min(), torch.tensor(-0.2860 / 0.3530))
    torch.testing.assert_close(images.max(), torch.tensor((1 - 0.2860) / 0.3530))


def test_synthetic_images_have_any_shape_and_tell_their_class():
    config = {"name": "synthetic", "num_classes": 7, "channels": 2, "size": 9, "train": 210, "seed": 5}
    splits = create(config, batch_size=210, augment={})
    assert splits.image_shape == (2, 9, 9)
    images, labels = next(splits.train.epoch(0))
    means = torch.stack([images[labels == label].mean(0).flatten() for label in range(7)])
    test_images, test_labels = whole(splits.test)
    nearest = torch.cdist(test_images.flatten(1), means).argmin(1)
    assert (nearest == test_labels).float().mean() > 0.95


def test_synthetic_images_do_not_depend_on_the_seed_of_the_run():
    assert torch.equal(whole(create(seed=0).test)[0], whole(create(seed=1).test)[0])


def test_more_images_a_batch_than_there_are_is_refused():
    with pytest.raises(UserError, match="batch_size=128 is more than the 70 training images"):
        create(batch_size=128)


def test_an_unknown_augmentation_is_refused_with_the_nearest_known_one():
    asked = r"recipe.augment.horizontal_flips.*\n.*did you mean 'recipe.augment.horizontal_flip'"
    with pytest.raises(UserError, match=asked):
        create(augment={"horizontal_flips": 0.5})


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("augment", [AUGMENT, {"horizontal_flip": 0.5}, {"random_erasing": 0.9}, {}])
def test_the_shares_of_several_processes_are_the_batches_of_one(world, first, augment):
    config = {"train": 70, "validation": 1, "test": 1, "name": "synthetic"}
    alone = list(create(config, augment=augment).train.epoch(3, first=first))
    for rank in range(world):
        shard = Shard(rank, world)
        mine = list(create(config, augment=augment, shard=shard).train.epoch(3, first=first))
        for (images, labels), (all_images, all_labels) in zip(mine, alone, strict=True):
            assert torch.equal(images, all_images[shard.rows(16)])
            assert torch.equal(labels, all_labels[shard.rows(16)])


@pytest.mark.gpu
def test_a_gpu_gets_the_images_that_a_cpu_gets():
    augment = {"crop_padding": 2, "horizontal_flip": 0.5}  # the noise of erasing is drawn on the device
    images, labels = whole(create(device="cuda", augment=augment).train)
    expected, expected_labels = whole(create(augment=augment).train)
    assert images.is_cuda
    torch.testing.assert_close(images.cpu(), expected)
    assert torch.equal(labels.cpu(), expected_labels)
