"""Laws of the operations on batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.data.augmentation import TensorAugmentation, crop_and_flip, crop_at, erase
from ablate.errors import UserError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), shape=st.tuples(*[st.integers(1, 6)] * 3), padding=st.integers(0, 3))
def test_a_crop_is_a_window_of_the_padded_image_mirrored_or_not(data, shape, padding):
    C, H, W = shape
    image = torch.arange(1, C * H * W + 1, dtype=torch.uint8).view(1, C, H, W)
    top, left = (data.draw(st.integers(0, 2 * padding)) for _ in range(2))
    flip = data.draw(st.booleans())

    padded = torch.zeros(1, C, H + 2 * padding, W + 2 * padding, dtype=torch.uint8)
    padded[:, :, padding : padding + H, padding : padding + W] = image
    window = padded[:, :, top : top + H, left : left + W]

    cropped = crop_at(image, *(torch.tensor([choice]) for choice in (top, left, flip)), padding)
    assert torch.equal(cropped, window.flip(-1) if flip else window)


def test_flipping_twice_is_the_identity_and_a_probability_of_one_flips_all():
    images = torch.randint(0, 256, (5, 3, 6, 7), dtype=torch.uint8, generator=generator())
    always = TensorAugmentation(horizontal_flip=1)
    once = crop_and_flip(images, always, generator())
    assert torch.equal(once, images.flip(-1))
    assert torch.equal(crop_and_flip(once, always, generator()), images)


def test_every_shift_and_both_orientations_occur_equally_often():
    corner = torch.zeros(6000, 1, 5, 5, dtype=torch.uint8)
    corner[:, :, 2, 1] = 1
    moved = crop_and_flip(corner, TensorAugmentation(crop_padding=1, horizontal_flip=0.5), generator())
    counts = moved.sum(0)[0]
    # Rows 1 to 3; columns 0 to 2, and mirrored 2 to 4, so that column 2 is met from both sides.
    expected = torch.tensor([1, 1, 2, 1, 1]) * 6000 / 18
    for row in (1, 2, 3):
        torch.testing.assert_close(counts[row].float(), expected, rtol=0.2, atol=0)
    assert counts.sum() == 6000


def test_erasing_replaces_one_rectangle_by_noise_in_the_chosen_images():
    images = erase(torch.full((2000, 1, 28, 28), 9.0), 0.25, generator())
    erased = (images != 9).flatten(1)
    assert 0.2 < erased.any(1).float().mean() < 0.3
    for image in images[erased.any(1)][:100]:
        hit = (image[0] != 9).nonzero()
        height, width = (hit.max(0).values - hit.min(0).values + 1).tolist()
        assert len(hit) == height * width  # a full rectangle
        assert 0.015 < height * width / 28**2 < 0.36
    noise = images[images != 9]
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05


@pytest.mark.gpu
def test_a_gpu_erases_the_pixels_that_a_cpu_erases():
    images = torch.full((500, 1, 28, 28), 9.0)
    erased = erase(images.clone(), 0.5, generator()) != 9
    assert torch.equal((erase(images.cuda(), 0.5, generator()) != 9).cpu(), erased)


@pytest.mark.parametrize(
    "options",
    [{"crop_padding": -1}, {"crop_padding": 1.5}, {"horizontal_flip": 2}, {"random_erasing": "often"}],
)
def test_values_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        TensorAugmentation(**options)
