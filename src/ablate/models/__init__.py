"""The published hybrids as ordinary timm models, registered by importing this package.

After `import ablate.models`, `timm.create_model("elsa_swin_tiny")` builds one, with `num_classes`,
`img_size` where timm's class has it, `features_only=True` and everything else of timm's class; `op=`
changes settings of its operator: `op={"channel": {"ghost_lambda": 1}}`. Pretrained weights of another
image or window size are interpolated (`resizing`). Each family has a file; `hybrid` registers.
May import `ablate.hosts` and `ablate.ops`. Start reading in `swin`.
"""

from ablate.models import dwnet, nat, resnet, swin, volo
from ablate.models.hybrid import Hybrid, register

CATALOGUE: dict[str, Hybrid] = {
    hybrid.name: hybrid for family in (swin, dwnet, nat, resnet, volo) for hybrid in family.hybrids()
}
for _hybrid in CATALOGUE.values():
    register(_hybrid)


def names() -> list[str]:
    """The hybrids, in alphabetical order."""
    return sorted(CATALOGUE)
