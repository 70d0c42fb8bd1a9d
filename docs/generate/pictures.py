"""Pictures of what an operator looks at, on three test images, before any training.

A point of the one equation shows its filters F at a position; any other operator shows the receptive field of
an output position. They are kept in build/docs-pictures as long as the code stays the same. Where notebooks
are not executed (ABLATE_DOCS_EXECUTE=off), only those in `SAMPLE` are drawn.
"""

from __future__ import annotations

import hashlib
import io
import os
from functools import cache
from typing import Any

from generate import ROOT

CACHE = ROOT / "build" / "docs-pictures"
CENTRE, ELSEWHERE, CORNER = (5, 8), (9, 5), (0, 12)
SIDE, DIM, HEADS = 14, 32, 2
SAMPLE = ("elsa", "lesa")
EMPTY = b'<svg xmlns="http://www.w3.org/2000/svg" width="320" height="240"/>'
DEPENDS_ON = ("src/ablate/ops", "src/ablate/kernels", "src/ablate/results/figures", "conf/op")


def caption(name: str) -> str:
    """Return the sentence below the picture."""
    if _is_point(name):
        return (
            "The filters *F* that position + applies, on three test images: head 1 at two positions and at "
            "the border, and head 2. The operator is untrained, and its initial weights are enlarged until a "
            "filter shows its form; what training would make of it is another matter."
        )
    return (
        "The receptive field of the output at position +, at two positions and at the border: the norm of "
        "the derivative by each input position, on three test images. The operator is untrained; the picture "
        "shows its form."
    )


def picture(name: str) -> bytes:
    """Return the picture of an operator as SVG."""
    from ablate import kernels

    path = CACHE / _state() / f"{name}.svg"
    if not path.exists() and os.environ.get("ABLATE_DOCS_EXECUTE") == "off" and name not in SAMPLE:
        return EMPTY
    if not path.exists():
        kernels.use("reference")  # on maps this small, compiling would take longer than computing
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_draw(name))
        kernels.use("auto")
    return path.read_bytes()


@cache
def _state() -> str:
    """Return a digest of the code that the pictures depend on."""
    digest = hashlib.sha256()
    files = [path for folder in DEPENDS_ON for path in (ROOT / folder).rglob("*")]
    code = [path for path in files if path.suffix in (".py", ".yaml")]
    for path in sorted([*code, ROOT / "docs/generate/pictures.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _is_point(name: str) -> bool:
    from ablate import ops

    return ops.spec(name).config is not None


def _draw(name: str) -> bytes:
    from matplotlib import rc_context

    from ablate.results.figures.maps import panels

    images, features = _inputs()
    columns = _filters(name, features) if _is_point(name) else _fields(name, features)
    figure = panels(images, columns)
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "ablate"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return file.getvalue()


@cache
def _inputs() -> tuple[Any, Any]:
    """Return three test images, and their features: 14×14 positions of 32 channels, as in the micro Swin."""
    import torch

    from ablate import data

    splits = data.create(
        {"name": "fashion_mini"}, seed=0, batch_size=4, augment={}, evaluation_batch_size=4, device="cpu"
    )
    images = next(iter(splits.test.epoch(0)))[0][1:4]
    torch.manual_seed(0)
    embed = torch.nn.Conv2d(1, DIM, 2, stride=2).requires_grad_(False)
    features = torch.nn.functional.layer_norm(embed(images).permute(0, 2, 3, 1), (DIM,))
    pixels = images[:, 0]
    return ((pixels - pixels.min()) / (pixels.max() - pixels.min())).numpy(), features


def _operator(name: str) -> Any:
    import torch

    from ablate import ops

    torch.manual_seed(1)
    return ops.create(name, DIM, heads=HEADS, resolution=(SIDE, SIDE)).eval()


def _filters(name: str, features: Any) -> list[Any]:
    from ablate.ops.inspection import filters

    operator = _enlarged(_operator(name), features)

    def column(title: str, position: tuple[int, int], head: int) -> Any:
        maps = filters(operator, features, position).unflatten(1, (operator.heads, -1))
        return _column(title, maps[:, head].mean(1), position)

    columns = [
        column("head 1", CENTRE, 0),
        column("head 1\nelsewhere", ELSEWHERE, 0),
        column("head 1\nat the border", CORNER, 0),
    ]
    return [*columns, column("head 2", CENTRE, 1)] if operator.heads > 1 else columns


def _enlarged(operator: Any, features: Any) -> Any:
    """Enlarge what generates the weights until a filter's peak is four times the mean of its taps."""
    from ablate.ops.inspection import filters

    for _ in range(30):
        found = filters(operator, features, CENTRE).abs()[:, 0].flatten(1)
        peak = found.amax(1) * (found > 0).sum(1) / found.sum(1)
        if peak.mean() > 4:
            break
        for parameter in operator.weights.parameters():
            parameter.data.mul_(1.25)
    return operator


def _begun(operator: Any, features: Any) -> Any:
    """Draw the parameters that are zero of an operator whose output is zero at first (DCNv4)."""
    import torch

    with torch.no_grad():
        if not operator(features).any():
            for parameter in operator.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.1)
    return operator


def _fields(name: str, features: Any) -> list[Any]:
    from ablate.ops.inspection import receptive_field

    operator = _begun(_operator(name), features)
    places = {"receptive field": CENTRE, "elsewhere": ELSEWHERE, "at the border": CORNER}
    return [
        _column(title, receptive_field(operator, features, position), position)
        for title, position in places.items()
    ]


def _column(title: str, maps: Any, position: tuple[int, int]) -> Any:
    from ablate.results.figures.maps import Column

    return Column(title, maps.detach().numpy(), tuple((place + 0.5) / SIDE for place in position))
