"""Pictures of the data set `fashion_scenes`: its maps of classes, and its objects."""

from __future__ import annotations

import io
from typing import Any

from generate import Pages

SHOWN = 6


def write(pages: Pages) -> None:
    """Write how-to/fashion_scenes.svg and how-to/fashion_objects.svg."""
    import numpy as np

    from ablate.data.fashion_scenes import FashionScenes
    from ablate.data.scenes import IGNORED

    found = FashionScenes(train=SHOWN, validation=1, test=1).scenes()[0]
    figure, axes = _panels(2)
    for column, scene in enumerate(found):
        axes[0, column].imshow(scene.image, cmap="gray", vmin=0, vmax=255)
        shown = np.ma.masked_where((scene.map == 0) | (scene.map == IGNORED), scene.map)
        axes[1, column].imshow(shown, cmap="tab10", vmin=1, vmax=10, interpolation="nearest")
    _save(pages, figure, "how-to/fashion_scenes.svg")
    figure, axes = _panels(1)
    for column, scene in enumerate(found):
        axes[0, column].imshow(scene.image, cmap="gray", vmin=0, vmax=255)
        for mask, label, box in zip(scene.masks, scene.classes, scene.boxes, strict=True):
            _draw(axes[0, column], mask, int(label), box.tolist())
    _save(pages, figure, "how-to/fashion_objects.svg")


def _draw(axes: Any, mask: Any, label: int, box: list[int]) -> None:
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    color = colormaps["tab10"](label)
    tint = np.zeros((*mask.shape, 4))
    tint[mask] = (*color[:3], 0.45)
    axes.imshow(tint, interpolation="nearest")
    left, top, right, bottom = box
    corner = (left - 0.5, top - 0.5)
    axes.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=color, linewidth=1))


def _panels(rows: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SHOWN, rows), layout="constrained")
    axes = figure.subplots(rows, SHOWN, squeeze=False)
    for one in axes.flat:
        one.set_axis_off()
    return figure, axes


def _save(pages: Pages, figure: Any, name: str) -> None:
    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "ablate"}):
        figure.savefig(content, format="svg", metadata={"Date": None}, transparent=True)
    pages.write(name, content.getvalue())
