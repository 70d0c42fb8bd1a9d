"""Checkpoint files: the authors', timm's and ours, read without executing anything."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablate import official
from ablate.errors import UserError, unknown
from ablate.store.files import write_atomically

# Where training programs put weights: timm's, Swin's, VOLO's, ablate's own.
PLAIN = ("state_dict", "best", "model")
AVERAGED = ("state_dict_ema", "model_ema", "ema")
DAMAGE = (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError)
HEADS = ("head.weight", "head.fc.weight", "fc.weight")


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's contents, tensors on the CPU.

    Nothing in the file is executed: beside tensors and plain values only `argparse.Namespace` may be
    in it, where timm and Swin keep the arguments of the training.

    Raises:
        UserError: no such file, a damaged one, or one that holds other objects.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        problem = f"no checkpoint to read at {path}: {error.strerror}"
        raise UserError(problem, "give the path of a .pth, .pth.tar or .pt file") from error
    except (*DAMAGE, OSError) as error:  # a file cut short makes PyTorch seek to where nothing is
        raise _unreadable(path, error) from error
    if not isinstance(contents, Mapping) or not contents:
        raise UserError(
            f"{path} holds no weights", "expected a state dict, or one under 'state_dict' or 'model'"
        )
    return dict(contents)


def _unreadable(path: Path, error: Exception) -> UserError:
    """PyTorch's own text advises to switch safe loading off, which nobody should."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found is not None:
        return UserError(
            f"{path} holds an object of {found[1]}, and only tensors and plain values are read: "
            "loading others can run any code",
            "where you trust its origin, save its state dict anew: torch.save(model.state_dict(), …)",
        )
    return UserError(f"{path} is not a checkpoint of PyTorch, or is damaged", "get it again")


def weights(contents: Mapping[str, Any], *, ema: bool = False) -> dict[str, Tensor]:
    """The state dict in a checkpoint, without the `module.` of parallel training.

    Raises:
        UserError: there is none, or no averaged one where that is requested.
    """
    keys = AVERAGED if ema else PLAIN
    found = next((contents[key] for key in keys if isinstance(contents.get(key), Mapping)), None)
    if found is None and not ema and all(isinstance(value, Tensor) for value in contents.values()):
        found = contents
    if not found:
        kind = "averaged weights" if ema else "weights"
        raise UserError(
            f"the checkpoint has no {kind}; it holds {', '.join(map(str, contents))}",
            f"expected one of {', '.join(keys)}",
        )
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def build(
    name: str, state_dict: Mapping[str, Tensor], overrides: Sequence[str] = (), img_size: int | None = None
) -> nn.Module:
    """A named network with as many classes and input channels as the weights are for, and the weights in it.

    Args:
        name: of `ablate bench models`, or any other of timm's.
        state_dict: under our names, timm's or the authors'.
        overrides: settings of its operator, `op.region.kernel=5`.
        img_size: of its images, where the network is built for one size.

    Raises:
        UserError: unknown network, settings it does not have, weights that do not fit.
    """
    model = create(name, overrides, num_classes=_classes(state_dict), img_size=img_size)
    if model.state_dict().keys() == state_dict.keys():
        expected = model.state_dict()
        wrong = [key for key, tensor in state_dict.items() if tensor.shape != expected[key].shape]
        if wrong:
            raise UserError(
                f"weights of another shape than {name}'s: {', '.join(wrong)}",
                "build it with the settings it was trained with (op.…=…, --img-size)",
            )
        model.load_state_dict(dict(state_dict))
    else:
        official.load(model, state_dict)
    return model


def create(
    name: str, overrides: Sequence[str] = (), *, num_classes: int | None, img_size: int | None
) -> nn.Module:
    """A network by its name in timm's registry.

    Raises:
        UserError: unknown network; settings or an image size that it does not have.
    """
    import timm
    from omegaconf import OmegaConf

    import ablate.models

    if not timm.is_model(name):
        family = name.partition("_")[0]
        raise unknown("model", name, {*ablate.models.names(), *timm.list_models(f"*{family}*")})
    kwargs: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if img_size is not None:
        kwargs["img_size"] = img_size
    if overrides:
        settings = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
        assert isinstance(settings, dict)
        strange = [key for key in settings if key != "op"]
        if strange or name not in ablate.models.CATALOGUE:
            raise UserError(
                f"{name} has no setting {', '.join(overrides)}",
                "ablate's own networks have settings of their operator, e.g. op.region.kernel=5",
            )
        kwargs["op"] = settings["op"]
    try:
        model: nn.Module = timm.create_model(name, **kwargs)
    except TypeError as error:
        problem = f"{name} cannot be built with {kwargs}: {error}"
        raise UserError(problem, "leave out what it does not have") from error
    return model


def convert_file(
    source: Path, name: str, target: Path, overrides: Sequence[str] = (), img_size: int | None = None
) -> None:
    """Write a checkpoint of ours from one under its authors' names, averaged weights too if it has some.

    Raises:
        UserError: see `read` and `build`; nothing is written then.
    """
    contents = read(source)
    converted: dict[str, Any] = {"model_name": name}
    averaged = any(isinstance(contents.get(key), Mapping) for key in AVERAGED)
    plain = any(isinstance(contents.get(key), Mapping) for key in PLAIN) or not averaged
    for key, present, ema in (("state_dict", plain, False), ("state_dict_ema", averaged, True)):
        if present:
            converted[key] = build(name, weights(contents, ema=ema), overrides, img_size).state_dict()
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda stream: torch.save(converted, stream))


def _classes(state_dict: Mapping[str, Tensor]) -> int | None:
    head = next((state_dict[name] for name in HEADS if name in state_dict), None)
    return None if head is None else head.shape[0]


def refuse_non_finite(model: nn.Module, origin: str) -> None:
    """Refuse weights with nan or inf, whose outputs would count as predictions.

    Args:
        model: with the weights.
        origin: file or run that they come from.

    Raises:
        UserError: names the first such parameter.
    """
    broken = [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]
    if broken:
        raise UserError(
            f"{origin}: {len(broken)} parameters hold nan or inf, the first {broken[0]}",
            "the training diverged or the file is damaged; use an earlier checkpoint",
        )
