"""Operators that belong to one size of map are refused for images of many sizes, all others are not."""

from __future__ import annotations

import pytest

from ablate import hosts, ops
from ablate.errors import UserError
from ablate.ops import configs

ARGUMENTS = {"num_classes": 0, "in_chans": 1, "img_size": (64, 96), "strided": "keep"}
BOUND = {"lesa": {}, "lesa_qr": {}, "lsa": {"region": "global"}}


@pytest.mark.parametrize("name", BOUND)
def test_one_that_is_built_for_a_map_is_refused(name: str) -> None:
    config = configs.override(ops.spec(name).defaults, BOUND[name])
    hosts.check("resnet_micro", config, **ARGUMENTS)
    with pytest.raises(UserError, match=rf"stage 1: op={name} is built for one size.*\n.*data.size=1024"):
        hosts.require_any_size("resnet_micro", config, **ARGUMENTS)


def test_the_others_are_accepted() -> None:
    accepted = {
        name: ops.spec(name).defaults for name in ("lsa", "elsa", "dwconv", "involution", "lesa_window")
    }
    accepted["lesa"] = configs.override(ops.spec("lesa").defaults, {"binary": "none"})
    for config in accepted.values():
        hosts.require_any_size("resnet_micro", config, **ARGUMENTS)
