"""From an authors' checkpoint to an accuracy, as a user types it."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_data_config

import ablate.models  # noqa: F401 (registers the hybrids with timm)
from ablate import official
from ablate.errors import UserError
from ablate.official import checkpoints

CLASSES = 6
SMALL = {"num_classes": CLASSES, "img_size": 64}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test split of random images of different sizes, without a training split."""
    root = tmp_path_factory.mktemp("data") / "photos"
    draw = np.random.default_rng(0)
    for label in range(CLASSES):
        folder = root / "val" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(3):
            pixels = draw.integers(0, 255, (70 + 9 * number, 95 - 7 * number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def authors_names(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """An ELSA-Swin's weights as its authors' code names and orders them."""
    ours = model.state_dict()
    theirs: dict[str, torch.Tensor] = {}
    for name, tensor in ours.items():
        name = re.sub(
            r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name
        )
        name = name.replace("head.fc.", "head.")
        owner, _, rest = name.partition(".attn.")
        if not rest:
            theirs[name] = tensor
        elif owner.startswith("layers.3"):
            if rest.startswith("qkv"):
                query, key, value = tensor.chunk(3)
                theirs[f"{owner}.attn.pre_proj.{rest[4:]}"] = torch.cat([value, query, key])
            elif rest.startswith("proj"):
                theirs[f"{owner}.attn.post_{rest}"] = tensor
            else:
                theirs[f"{owner}.attn.rb"] = tensor.T.flip(1)
                theirs[f"{owner}.attn.relative_id"] = torch.zeros(4)
        elif rest.startswith("weights.query_key"):
            leaf = rest.rpartition(".")[2]
            both = torch.cat([tensor, ours[f"{owner}.attn.value.{leaf}"]])
            theirs[f"{owner}.attn.pre_proj.{leaf}"] = both[..., None, None] if leaf == "weight" else both
        elif rest.startswith("weights.mix"):
            theirs[f"{owner}.attn.attn.0.{rest[12:]}"] = tensor
        elif rest.startswith("weights.expand"):
            leaf = rest.rpartition(".")[2]
            theirs[f"{owner}.attn.attn.2.{leaf}"] = tensor[..., None, None] if leaf == "weight" else tensor
        elif rest.startswith("output"):
            theirs[f"{owner}.attn.post_proj.{rest[7:]}"] = tensor
        elif rest == "ghost.add":
            theirs[f"{owner}.attn.ghost_head"] = tensor.view(1, -1, 7, 7)
    return theirs


@pytest.fixture(scope="module")
def elsa(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """An ELSA-Swin and a checkpoint of it as timm's training writes the authors' model."""
    torch.manual_seed(0)
    model = timm.create_model("elsa_swin_tiny", **SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    averaged = {name: tensor * 0.9 for name, tensor in authors_names(model).items()}
    path = tmp_path_factory.mktemp("official") / "elsa_swin_tiny.pth.tar"
    contents = {
        "state_dict": {f"module.{name}": tensor for name, tensor in authors_names(model).items()},
        "state_dict_ema": averaged,
        "args": argparse.Namespace(model="elsa_swin_tiny", lr=1e-3),
    }
    torch.save(contents, path)
    return model, path


def test_from_the_authors_checkpoint_to_timms_accuracy(
    ablate: Callable, elsa: tuple, photos: Path, tmp_path: Path
) -> None:
    model, path = elsa
    ours = tmp_path / "ours" / "elsa.pt"
    done = ablate("convert", str(path), "--model", "elsa_swin_tiny", "--img-size", "64", "-o", str(ours))
    assert done.out.split() == [str(ours)]
    converted = torch.load(ours, weights_only=True)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(converted["state_dict"][name], tensor, rtol=0, atol=0)
        torch.testing.assert_close(converted["state_dict_ema"][name], tensor * 0.9)
    settings = resolve_data_config({"input_size": (3, 64, 64)}, model=model)
    loader = create_loader(
        create_dataset("", root=photos, split="val"), batch_size=5, use_prefetcher=False, **{
            key: settings[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")
        }, num_workers=0,
    )  # fmt: skip
    with torch.no_grad():
        logits, labels = zip(*((model(images), labels) for images, labels in loader), strict=True)
    expected = F.cross_entropy(torch.cat(logits), torch.cat(labels)).item()
    top1 = (torch.cat(logits).argmax(1) == torch.cat(labels)).float().mean().item() * 100
    data = ("data=image_folder", "data.folder=photos", f"data.num_classes={CLASSES}", f"data.root={photos}")
    common = ("--model", "elsa_swin_tiny", "--img-size", "64", "--workers", "0", "--batch-size", "5", *data)
    shown = {}
    for checkpoint in (path, ours):
        for flags in ((), ("--ema",)):
            out = ablate("evaluate", "--checkpoint", str(checkpoint), *flags, *common).out
            shown[checkpoint, flags] = re.search(r"top-1 ([\d.]+) %, top-5 [\d.]+ %, loss ([\d.]+)", out)
    for checkpoint in (path, ours):
        assert float(shown[checkpoint, ()][1]) == pytest.approx(top1, abs=0.001)
        assert float(shown[checkpoint, ()][2]) == pytest.approx(expected, abs=2e-4)
    assert shown[ours, ("--ema",)][0] == shown[path, ("--ema",)][0] != shown[ours, ()][0]


@pytest.mark.parametrize(
    ("value", "expected"), [(math.nan, "the first head.fc.weight"), (3e38, "not finite: the loss")]
)
def test_what_is_not_finite_has_no_accuracy(
    ablate: Callable, elsa: tuple, photos: Path, tmp_path: Path, value: float, expected: str
) -> None:
    model, _ = elsa
    weights = {**model.state_dict(), "head.fc.weight": value * torch.randn_like(model.head.fc.weight).sign()}
    torch.save({"state_dict": weights}, tmp_path / "diverged.pth")
    data = ("data=image_folder", "data.folder=photos", f"data.num_classes={CLASSES}", f"data.root={photos}")
    common = ("--model", "elsa_swin_tiny", "--img-size", "64", "--workers", "0", *data)
    done = ablate("evaluate", "--checkpoint", str(tmp_path / "diverged.pth"), *common)
    assert done.code == 2
    assert expected in done.err
    assert "top-1" not in done.out


class Trap:
    """What a malicious checkpoint would hold."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("trap"),))


def test_refused_with_nothing_written(ablate: Callable, elsa: tuple, tmp_path: Path) -> None:
    model, path = elsa
    torch.save({"state_dict": model.state_dict(), "trap": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "half.pth").write_bytes(path.read_bytes()[:5000])
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    weights = authors_names(model)
    weights["layers.0.blocks.0.attn.unheard_of"] = weights.pop("layers.0.blocks.0.attn.ghost_head")
    torch.save(weights, tmp_path / "other.pth")
    cases = {
        "missing.pth": ("elsa_swin_tiny", "no checkpoint"),
        "trap.pth": ("elsa_swin_tiny", "holds an object of "),
        "half.pth": ("elsa_swin_tiny", "is not a checkpoint of PyTorch, or is damaged"),
        "none.pth": ("elsa_swin_tiny", "the checkpoint has no weights; it holds epoch"),
        "other.pth": (
            "elsa_swin_tiny",
            "1 without a place: layers.0.blocks.0.attn.unheard_of\n  1 missing: layers.0.blocks.0.attn.ghost",
        ),
        path: ("elsa_swin_tny", "did you mean 'elsa_swin_tiny'"),
    }
    for name, (network, expected) in cases.items():
        out = tmp_path / "out.pt"
        arguments = ["--model", network, "--img-size", "64", "-o", str(out)]
        done = ablate("convert", str(tmp_path / name), *arguments)
        assert done.code == 2
        assert expected in done.err
        assert "weights_only" not in done.err, "PyTorch's advice to switch safe loading off"
        assert not out.exists()
    assert not Path("trap").exists()


def test_lesa_resnet_and_dwnet_load_under_their_authors_names() -> None:
    """Their names around the operators; the operators' own are compared with golden files."""
    model = timm.create_model("lesa_resnet50", **SMALL)
    lesa = model.layer3[1].conv2.operator
    theirs = {name: t for name, t in model.state_dict().items() if ".operator." not in name}
    names = {
        "qkv_transform.weight": lesa.binary.query_key_value.weight[..., None],
        "relative": lesa.binary.position.relative,
        "x_transform.0.weight": lesa.unary.spatial.weight,
        "x_transform.1.weight": lesa.unary.mix.weight,
        "projection.0.weight": lesa.fusion.gate[4].weight,
        "reasoning.1.weight": lesa.fusion.gate[1].weight,
        "bn_qkv.running_var": lesa.binary.norm.running_var,
    }
    placed = official.convert(
        model, {**theirs, **{f"layer3.1.conv2.{name}": tensor for name, tensor in names.items()}}
    )
    for name, tensor in placed.items():
        torch.testing.assert_close(tensor, model.state_dict()[name])
    assert len(placed) == len(theirs) + len(names)
    dwnet = timm.create_model("d_dwnet_tiny", num_classes=CLASSES)
    block = dwnet.layers[1].blocks[0]
    placed = official.convert(
        dwnet,
        {
            "layers.0.downsample.norm.weight": dwnet.layers[1].downsample.norm.weight,
            "layers.1.blocks.0.attn2conv.conv0.weight": block.attn.expand.weight[..., None, None],
            "layers.1.blocks.0.attn2conv.conv.conv1.weight": block.attn.operator.weights.reduce.weight[
                ..., None, None
            ],
            "layers.1.blocks.0.bn.weight": block.norm2.weight,
            "head.bias": dwnet.head.fc.bias,
        },
    )
    for name, tensor in placed.items():
        torch.testing.assert_close(tensor, dwnet.state_dict()[name])


def test_a_checkpoint_of_a_run_is_read_too(tmp_path: Path) -> None:
    best = {"weight": torch.ones(2)}
    torch.save({"epoch": 3, "model": {"weight": torch.zeros(2)}, "best": best}, tmp_path / "run.pt")
    found = checkpoints.weights(checkpoints.read(tmp_path / "run.pt"))
    torch.testing.assert_close(found["weight"], best["weight"])


def test_a_subset_is_placed_as_the_whole_is_and_nothing_twice() -> None:
    with torch.device("meta"):
        model = timm.create_model("elsa_swin_tiny", num_classes=CLASSES)
    whole = authors_names(model)
    merging = {"layers.1.downsample.reduction.weight": whole["layers.1.downsample.reduction.weight"]}
    assert list(official.convert(model, merging)) == ["layers.2.downsample.reduction.weight"]
    own = model.state_dict()
    assert official.convert(model, {name: own[name] for name in own if ".attn." not in name}).keys() == {
        name for name in own if ".attn." not in name
    }
    twice = {"head.fc.weight": own["head.fc.weight"], "head.weight": whole["head.weight"]}
    with pytest.raises(UserError, match=r"no place in SwinTransformer for 1 tensor: head\.weight"):
        official.convert(model, twice)
