"""A picture of the data set `fashion_scenes`: scenes, and their maps of classes below them."""

from __future__ import annotations

import io

from generate import Pages

SHOWN = 6


def write(pages: Pages) -> None:
    """Write how-to/fashion_scenes.svg."""
    import numpy as np
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from ablate.data.contract import Storage
    from ablate.data.fashion_scenes import FashionScenes
    from ablate.data.scenes import IGNORED

    found = FashionScenes(train=SHOWN, validation=1, test=1).read(Storage(pages.folder)).train
    with rc_context({"svg.hashsalt": "ablate"}):
        figure = Figure(figsize=(SHOWN, 2), layout="constrained")
        rows = figure.subplots(2, SHOWN)
        for column, (image, labels) in enumerate(zip(found.images[:, 0], found.labels, strict=True)):
            rows[0, column].imshow(image, cmap="gray", vmin=0, vmax=255)
            shown = np.ma.masked_where((labels == 0) | (labels == IGNORED), labels)
            rows[1, column].imshow(shown, cmap="tab10", vmin=1, vmax=10, interpolation="nearest")
        for axes in rows.flat:
            axes.set_axis_off()
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None}, transparent=True)
    pages.write("how-to/fashion_scenes.svg", content.getvalue())
