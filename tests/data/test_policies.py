"""Every augmentation policy of timm on every image, whatever the versions of Pillow and timm refuse."""

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image, ImageOps
from timm.data import auto_augment

from ablate import data
from ablate.configuration import conf_dir
from ablate.data.augmentation import FolderAugmentation
from ablate.data.policies import accept_all_magnitudes, operations, training_transform
from ablate.data.seeding import global_generators_seeded
from ablate.errors import UserError

POLICIES = (
    "rand-m9-mstd0.5-inc1",
    "rand-m10-mstd1-n3-p1",  # `Posterize` and not `PosterizeIncreasing`
    "rand-m10-inc1-tweights",
    "rand-m10-t3a",
    "rand-m10-inc1-t3aw",
    "rand-m15-mmax15-inc1-p1",  # keeps fewer than 0 bits
    *("v0", "v0r", "original", "originalr", "3a", "original-mstd0.5"),
    *("augmix-m10-w4-d2", "augmix-m10-b1"),
)
RECIPES = sorted(path.stem for path in (conf_dir() / "recipe").glob("*_imagenet.yaml"))
NOISE = np.random.RandomState(0).randint(0, 256, (20, 24, 3), np.uint8)
ODD_IMAGES = {
    "one pixel": Image.new("RGB", (1, 1), (9, 200, 3)),
    "one row": Image.fromarray(NOISE[:1]),
    "grey": Image.fromarray(NOISE[..., 0]).convert("RGB"),
    "palette": Image.fromarray(NOISE).quantize(16).convert("RGB"),
    "colour": Image.fromarray(NOISE),
}


@pytest.fixture(autouse=True)
def strict_pillow(monkeypatch):
    """Refuse what Pillow 13 refuses, whichever version is installed."""
    original = ImageOps.posterize

    def refusing(image, bits):
        if not 1 <= bits <= 8:
            raise ValueError("bits must be between or equal to 1 and 8")
        return original(image, bits)

    monkeypatch.setattr(ImageOps, "posterize", refusing)


@pytest.mark.parametrize("name", auto_augment.NAME_TO_OP)
def test_an_operation_works_at_every_magnitude_on_odd_images(name):
    settings = {"translate_const": 100, "img_mean": (124, 116, 104), "magnitude_max": 15}
    for magnitude in (*range(11), 9.99, 15):
        operation = auto_augment.AugmentOp(name, prob=1, magnitude=magnitude, hparams=settings)
        accept_all_magnitudes(operation)
        for image in ODD_IMAGES.values():
            found = operation(image)
            assert (found.mode, found.size) == ("RGB", image.size)
            if name == "PosterizeIncreasing":
                kept = max(0, 4 - int(magnitude / 10 * 4))  # bits of each channel
                expected = np.asarray(image) & (0xFF ^ (0xFF >> kept))
                assert np.array_equal(np.asarray(found), expected), magnitude


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_works_on_odd_images_and_leaves_other_code_alone(policy):
    table = dict(auto_augment.NAME_TO_OP)
    transform = training_transform(8, FolderAugmentation(auto_augment=policy))
    assert len(list(operations(transform))) >= 3
    for image in ODD_IMAGES.values():
        for seed in range(60):
            with global_generators_seeded(seed):
                assert transform(image).shape == (3, 8, 8)
    assert table == auto_augment.NAME_TO_OP


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_for_imagenet_survive_many_images(recipe):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        augment = compose("train", [f"recipe={recipe}"]).recipe.augment
    transform = training_transform(8, FolderAugmentation(**augment))
    for operation in operations(transform):
        operation.prob = 1  # twice the operations of the recipe
    image = ODD_IMAGES["colour"]
    for seed in range(400):
        with global_generators_seeded(seed):
            assert transform(image).shape == (3, 8, 8)


@pytest.mark.parametrize(
    "policy",
    [
        "v1",
        "rand-x9",
        "rnd-m9",
        "augmix-q3",
        "rand-m",
        "rand-tbogus",
        "v0-loud",
        "rand-m12",
        "rand-m20-mmax15",
    ],
)
def test_an_unknown_policy_is_refused_at_submission(policy):
    with pytest.raises(UserError, match=f"auto_augment '{policy}'"):
        data.check({"name": "imagenet"}, {"auto_augment": policy})
