"""Augmentation of a recipe, read for one kind of data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ablate.configuration import Settings, read_settings
from ablate.errors import UserError

PATH = "recipe.augment"


def read_augmentation(kind: type[Settings], augment: Mapping[str, Any]) -> Settings:
    """Read a recipe's augmentation for the data sets that have augmentation of this kind.

    Settings of other kinds are ignored where they are off, so that one recipe serves several kinds.

    Raises:
        UserError: an unknown setting, one of another kind that is on, or an invalid value.
    """
    from ablate.data.augmentation import FolderAugmentation, MapAugmentation, TensorAugmentation
    from ablate.data.geometry import InstanceAugmentation

    kinds: tuple[Any, ...] = (TensorAugmentation, FolderAugmentation, MapAugmentation, InstanceAugmentation)
    others = {field.name for other in kinds for field in fields(other)}
    own = [field.name for field in fields(kind)]
    mine = {}
    for name, value in augment.items():
        if name in own or name not in others:
            mine[name] = value
        elif value:
            raise UserError(
                f"{PATH}.{name}={value} is for another kind of data set",
                f"switch it off, ~{PATH}.{name}, or use a recipe for this data set; it has {', '.join(own)}",
            )
    return read_settings(kind, PATH, mine)
