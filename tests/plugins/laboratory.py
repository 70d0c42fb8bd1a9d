"""A package outside the repository, with an operator, host, data set, metric, callback, preset and study."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TINY = ("infra.tracking=none", "infra.threads=1", "infra.device=cpu", "recipe.epochs=2")
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "laboratory"
version = "0.7"

[project.entry-points."ablate.plugins"]
laboratory = "laboratory.everything"

[tool.hatch.build.targets.wheel]
packages = ["laboratory"]
"""
EVERYTHING = '''
import enum
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ablate import callbacks, data, hosts, ops, tasks


class Border(enum.Enum):
    ZEROS = "zeros"
    REFLECT = "reflect"


@dataclass(frozen=True)
class Scaling:
    power: float = 1.0
    learned: bool = True


@ops.register("averaging", paper="-", year=2026, channel_setting="-", spatial_processing="mean of 3×3")
class Averaging(nn.Module):
    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: tuple[int, int],
        border: Border = Border.ZEROS,
        kernels: tuple[int, ...] = (3,),
        scaling: Scaling = Scaling(),
        table: Path | None = None,
    ) -> None:
        super().__init__()
        assert isinstance(border, Border) and isinstance(kernels, tuple) and isinstance(scaling, Scaling)
        assert table is None or isinstance(table, Path)
        self.border, self.kernels, self.scaling = border, kernels, scaling
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        y = x.permute(0, 3, 1, 2)
        for kernel in self.kernels:
            y = nn.functional.avg_pool2d(y, kernel, 1, kernel // 2)
        return self.scale * y.permute(0, 2, 3, 1)


def slots(model, images):
    yield hosts.PlacedSlot(ops.Slot(model.stem.out_channels, 2, (images[0] // 4, images[1] // 4)), 1, "mixer")


@hosts.register("one_block", slots=slots, stages=1, image_size=(28, 28), multiple=4, channels_first=True)
class OneBlock(nn.Module):
    def __init__(self, num_classes=10, in_chans=3, img_size=28, width=8):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, width, 4, 4)
        self.mixer = nn.Identity()
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        y = self.stem(x)
        return self.head((y + self.mixer(y)).relu().mean((2, 3)))


@data.register("stripes")
@dataclass(frozen=True)
class Stripes(data.InMemorySet):
    """Horizontal and vertical stripes."""

    train: int = 64
    mean, std = (0.5,), (0.3,)

    @property
    def info(self):
        return data.DataInfo(2, (1, 28, 28), self.train)

    def read(self, storage):
        def draw(count, seed):
            labels = np.arange(count) % 2
            images = np.random.RandomState(seed).randint(0, 60, (count, 1, 28, 28)).astype(np.uint8)
            images[labels == 0, :, ::2] += 180
            images[labels == 1, :, :, ::2] += 180
            return data.Labelled(images, labels)

        return data.LabelledSplits(draw(self.train, 0), draw(32, 1), draw(32, 2))


@tasks.register_metric("confidence", words="mean confidence", unit="%")
def confidence(logits, labels):
    assert logits.shape == (len(labels), 2)
    return 100 * logits.softmax(1).amax(1).mean()


@callbacks.register("gradient")
class Gradient(callbacks.Callback):
    def on_step(self, run):
        run.weights()["head.bias"].fill_(1000)  # a copy
        torch.rand(5), np.random.rand(5)
        return {"norm": sum(g.square().sum() for g in run.gradients().values()).sqrt()}

    def on_epoch(self, run, figures):
        return {"confident": figures["validation_confidence"] / 100}

    def on_end(self, run, result):
        return {"steps": run.step}


@callbacks.register("clumsy")
class Clumsy(callbacks.Callback):
    def on_epoch(self, run, figures):
        return {"never": figures["no such figure"]}
'''
POINT = """# Filters of one neighborhood, the same at every position.
defaults:
  - channel: depthwise
  - weights: static
  - norm: identity
  - region: neighborhood
  - _self_
name: my_point
"""
STUDY = """# @package _global_
# Two operators of the package in its network.
defaults:
  - override /host: one_block
  - override /data: stripes
  - override /recipe: debug

study:
  name: laboratory
  question: Is an average enough?
  factors: [op]
  baseline: {op: averaging}
  metric: test_confidence
  margin: 1

hydra:
  mode: MULTIRUN
  sweeper:
    params:
      seed: 0,1
      op: averaging,my_point
"""

FILE = """
import beside_it
from ablate import ops
from torch import nn


@ops.register("mine", paper="-", year=2026, channel_setting="-", spatial_processing="-")
class Mine(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        assert heads in beside_it.HEADS
        self.layer = nn.Linear(dim, dim)

    def forward(self, x):
        return self.layer(x)
"""


def write(folder: Path) -> Path:
    """Write the package's source, and return its folder."""
    files = {
        "pyproject.toml": PYPROJECT,
        "laboratory/__init__.py": "",
        "laboratory/everything.py": EVERYTHING,
        "laboratory/conf/op/my_point.yaml": POINT,
        "laboratory/conf/study/laboratory.yaml": STUDY,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def installed(folder: Path) -> Path:
    """Install the package with pip, and return the folder that it is importable from."""
    source, target = write(folder / "source"), folder / "site"
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)],
        check=True,
        timeout=300,
    )
    return target


def importable(*folders: Path) -> str:
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


def file_with_configuration(folder: Path) -> Path:
    """Write a file that registers an operator, with a file beside it and settings in `conf`."""
    (folder / "conf" / "op").mkdir(parents=True)
    (folder / "conf" / "op" / "mine.yaml").write_text("# Twice the heads.\nname: mine\nheads: 2x\n")
    (folder / "beside_it.py").write_text("HEADS = (2, 4, 6)\n")
    path = folder / "mine_in_a_file.py"
    path.write_text(FILE)
    return path
