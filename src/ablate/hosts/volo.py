"""VOLO hosts (Yuan et al., 2021): timm's class, slot = an outlooker's attention.

The first of VOLO's stages has outlookers, which never drop paths, the others transformers over the
whole map. timm's `forward` gives one tensor in training too: half the maximum of the auxiliary head
over the tokens is added to the logits, and neither mix-token nor token labels are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import timm
from timm.models.volo import VOLO
from torch import Tensor, nn

from ablate.errors import UserError
from ablate.hosts.slots import HostSpec, PlacedSlot, sides
from ablate.ops import Slot
from ablate.ops.registry import OperatorSpec


def slots(model: nn.Module, images: tuple[int, int]) -> Iterator[PlacedSlot]:
    """Every outlooker's attention: it pools within, but its output map is its input map."""
    assert isinstance(model, VOLO)
    reduction = model.feature_info[0]["reduction"]
    resolution = (images[0] // reduction, images[1] // reduction)
    for index, block in enumerate(model.network[0]):
        slot = Slot(block.attn.v.in_features, block.attn.num_heads, resolution, index=index)
        yield PlacedSlot(slot, 1, f"network.0.{index}.attn")


def fill(model: nn.Module, placed: PlacedSlot, operator: nn.Module, entry: OperatorSpec) -> None:
    """The operator for the attention; outlookers keep channels last."""
    model.set_submodule(placed.path, operator)


def _published(variant: str) -> Callable[..., nn.Module]:
    def build(img_size: Any = 224, **kwargs: Any) -> nn.Module:
        model = timm.create_model(f"volo_{variant}_224", pretrained=False, img_size=img_size, **kwargs)
        return _for_images(model, sides(img_size))

    return build


def _micro(img_size: Any = 28, **kwargs: Any) -> nn.Module:
    """Two outlookers of 32 channels at half the resolution, a transformer of 64 at a quarter.

    timm's smallest patch is 4×4: with a stem that does not stride it is 2×2, and the position
    embedding is that of images twice as large.
    """
    settings = {
        "layers": (2, 1),
        "embed_dims": (32, 64),
        "num_heads": (2, 4),
        "downsamples": (True, False),
        "outlook_attention": (True, False),
        "post_layers": ("ca",),
        "patch_size": 4,
        "stem_hidden_dim": 16,
        "mlp_ratio": 2.0,
    }
    height, width = sides(img_size)
    model = VOLO(**{**settings, **kwargs, "img_size": (2 * height, 2 * width)})
    model.patch_embed.conv[0].stride = (1, 1)
    for info in model.feature_info:
        info["reduction"] //= 2
    return _for_images(model, (height, width))


def _for_images(model: nn.Module, images: tuple[int, int]) -> nn.Module:
    """Let the network say which images it is for, before its position embedding fails to be added."""
    model.get_submodule("patch_embed").register_forward_pre_hook(partial(_refuse_others, images))
    return model


def _refuse_others(images: tuple[int, int], module: nn.Module, inputs: tuple[Tensor]) -> None:
    given = tuple(inputs[0].shape[-2:])
    if given != images:
        raise UserError(
            f"the network was built for images of {images[0]}×{images[1]} pixels, not {given[0]}×{given[1]}: "
            "its position embedding has an entry for every patch of them",
            "build it with img_size=…",
        )


def specs() -> list[HostSpec]:
    """The VOLO hosts."""
    published = [
        HostSpec(
            name=f"volo_{variant}",
            build=_published(variant),
            slots=slots,
            fill=fill,
            stages=1,
            image_size=(224, 224),
            multiple=8,
            smallest=16,
            dense=False,
        )
        for variant in ("d1", "d2", "d3", "d4", "d5")
    ]
    micro = HostSpec(
        name="volo_micro",
        build=_micro,
        slots=slots,
        fill=fill,
        stages=1,
        image_size=(28, 28),
        multiple=2,
        smallest=4,
        dense=False,
    )
    return [*published, micro]
