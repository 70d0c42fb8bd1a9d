"""Configurations of data sets: every one that is shipped is valid, every mistake is named."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from ablate import data
from ablate.data.augmentation import TensorAugmentation
from ablate.data.catalogue import DATA_SETS
from ablate.errors import UserError

CONFIGS = {path.stem: path for path in (Path(__file__).parents[2] / "conf" / "data").glob("*.yaml")}


@pytest.mark.parametrize("name", sorted(DATA_SETS))
def test_the_shipped_configuration_names_every_key(name):
    config = yaml.safe_load(CONFIGS[name].read_text(encoding="utf-8"))
    assert config.pop("name") == name
    info = data.info({"name": name, **config})
    channels, height, width = info.image_shape
    assert (channels, height) in {(1, 28), (1, 64), (3, 28), (3, 32), (3, 224), (3, 512), (3, 800)}
    assert height == width or not info.fixed_size
    data_set = DATA_SETS[name](**config)
    assert asdict(data_set) == config


@pytest.mark.parametrize("name", ["fashion_mini", "synthetic"])
def test_the_number_of_training_images_is_what_there_is(name):
    config = yaml.safe_load(CONFIGS[name].read_text(encoding="utf-8"))
    splits = data.create(config, seed=0, batch_size=1, augment=asdict(TensorAugmentation()))
    assert splits.train.samples == data.info(config).train_images


def test_the_catalogue_and_the_configurations_are_the_same():
    assert set(CONFIGS) == set(DATA_SETS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "fashion_minni"}, "unknown data set 'fashion_minni'.*\n.*did you mean 'fashion_mini'"),
        ({}, "has no name.*\n.*cifar10"),
        ({"name": "synthetic", "chanels": 3}, "data.chanels.*\n.*did you mean 'data.channels'"),
        ({"name": "cifar10", "size": 64}, "unknown setting 'data.size'"),
        ({"name": "image_folder", "folder": "x"}, "data.num_classes is missing"),
        ({"name": "synthetic", "size": 0}, r"data.size is 0"),
        ({"name": "imagenet", "crop_pct": "all"}, r"data.crop_pct='all' has the wrong type"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(config, message):
    with pytest.raises(UserError, match=message):
        data.info(config)


def test_info_and_availability_need_neither_data_nor_torch():
    code = """
import sys
from ablate import data
data.info({"name": "imagenet"})
rows = {row.name: row for row in data.availability()}
assert rows["fashion_mini"].available and rows["synthetic"].available
assert "torch" not in sys.modules and "timm" not in sys.modules
print(*sorted(rows))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == sorted(DATA_SETS)
