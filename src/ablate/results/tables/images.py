"""Table of test images as pairs: gained, lost, and where the noise of the differences lies."""

from __future__ import annotations

import math

from ablate.results import formats
from ablate.results.images import Components, Images, OnImages
from ablate.results.tables.table import Cell, Table, difference, number, words

SIGNIFICANT = 0.05  # uncorrected: each seed by itself


def on_images(images: Images | None) -> Table:
    """Conditions against the baseline on the test images; no rows where runs kept no predictions."""
    title = "Test images as pairs"
    if images is None:
        return Table("images", title, [])
    digits = formats.decimals(one.interval for one in images.compared)
    rows = [_row(one, digits) for one in images.compared]
    return Table("images", title, rows, _note(images))


def _row(one: OnImages, digits: int) -> dict[str, Cell]:
    below = sum(p < SIGNIFICANT for p in one.mcnemar)
    return {
        "Condition": words(one.condition),
        "n": number(len(one.seeds), str(len(one.seeds))),
        "Gained": number(one.gained, formats.plain(one.gained, 0)),
        "Lost": number(one.lost, formats.plain(one.lost, 0)),
        "Difference (pp) [95 %, seeds and images]": difference(one.difference, one.interval, digits),
        "Bootstrap [95 %]": number(
            one.bootstrap[1] - one.bootstrap[0], formats.interval(one.bootstrap, digits)
        ),
        "McNemar, p < 0.05": number(below, f"{below} of {len(one.mcnemar)}"),
        "Run-to-run sd (pp)": _noise(one.components, "runs"),
        "Test-set sd (pp)": _noise(one.components, "images"),
        "Calibration error (pp)": number(one.calibration, formats.plain(one.calibration, 1)),
    }


def _noise(parts: Components | None, of: str) -> Cell:
    if parts is None:
        return number(math.nan, formats.NOTHING)
    variance = parts.of_seeds if of == "runs" else parts.of_images / parts.images
    value = 100 * math.sqrt(variance)
    return number(value, formats.plain(value, 2))


def _note(images: Images) -> str:
    some = images.compared[0].images
    left = (
        f" {formats.counted(images.left_out, 'finished run')} without predictions of these images left out."
        if images.left_out
        else ""
    )
    return (
        f"{some} test images. Gained: right in the condition and wrong in {images.baseline}, a mean over the "
        "seeds; lost: the reverse. The interval holds for other seeds and another test set of this size: "
        "Student’s t of the variance components of seeds, images and the rest; the bootstrap draws both, "
        "and is too wide where images change from run to run. McNemar: in how many seeds the exact test of "
        "gains against losses is below 0.05, uncorrected; it says that these two runs differ, not that the "
        "conditions do. Run-to-run: what another seed changes in the difference over images without end; "
        "test set: what another draw of the images changes. Calibration error: expected, 15 bins; "
        f"{images.baseline} has {formats.plain(images.baseline_calibration, 1)}.{left}"
    )
