"""Weights that timm publishes, by the name of a model with its tag; read through timm's own cache."""

from __future__ import annotations

from difflib import get_close_matches

from torch import Tensor

from ablate.errors import UserError, unknown

PREFIX = "timm:"
SHOWN = 8  # names that an error lists


def require(name: str) -> None:
    """Refuse a name that is not of published weights, without reading any.

    Args:
        name: of a model, with the tag of its weights: `swin_tiny_patch4_window7_224.ms_in1k`.

    Raises:
        UserError: names the tags of the model, or the nearest names.
    """
    import timm

    published = timm.list_pretrained()
    if name in published:
        return
    tagged = [one for one in published if one.partition(".")[0] == name.partition(".")[0]]
    if tagged:
        problem = f"{PREFIX}{name} does not name weights of timm" + (
            "" if "." in name else ": a model may have several, and their names end in a tag"
        )
        more = ", …" if len(tagged) > SHOWN else ""
        raise UserError(problem, f"use one of: {', '.join(PREFIX + one for one in tagged[:SHOWN])}{more}")
    raise unknown("weights of timm:", name, get_close_matches(name, published, SHOWN, cutoff=0))


def weights(name: str) -> dict[str, Tensor]:
    """Return the published weights of a name, by timm's names of today; downloaded once by timm.

    Raises:
        UserError: see `require`; or they are not in the cache and cannot be downloaded.
    """
    import timm

    require(name)
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # of whatever library timm downloads and reads the file with
        lines = str(error).strip().splitlines() or [""]
        raise UserError(
            f"timm cannot load the weights {name}: {type(error).__name__}: {lines[0]}",
            "without a network, load them once where there is one (timm.create_model("
            f"{name!r}, pretrained=True)) and copy the cache of Hugging Face (HF_HOME), or give "
            "the path of a file",
        ) from error
    return {key: value.detach() for key, value in model.state_dict().items()}
