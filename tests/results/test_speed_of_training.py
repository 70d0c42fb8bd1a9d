"""Speed figures in the report and in `ablate status`; results that lack them read as before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ablate.results.report import report
from ablate.store.folder import RunFolder
from ablate.store.manifest import Manifest


def measured(folder: RunFolder, **figures: float) -> None:
    """Add figures to a run, as training of today records them."""
    result = folder.result() or {}
    folder.result_path.write_text(json.dumps({**result, **figures}))
    lines = [{"epoch": epoch, "seconds": 2.0, "images_per_second": 812.4, **figures} for epoch in (1, 2)]
    folder.speed_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    environment = json.loads(folder.environment_path.read_text())
    environment["numerics"] = {"compile": True, "memory_format": "channels_last"}
    folder.environment_path.write_text(json.dumps(environment))


def test_speed_is_shown_where_it_was_measured(
    fabricate: Callable[..., Manifest], tmp_path: Path, ablate: Callable[..., Any]
) -> None:
    manifest = fabricate({"lsa": {0: 84.0, 1: 84.5}, "elsa": {0: 85.0, 1: 85.1}})
    earlier = report(tmp_path, "quick", tmp_path / "earlier")
    assert not [path for path in earlier if path.stem == "speed"]
    assert "Speed of training" not in (tmp_path / "earlier" / "index.html").read_text()
    status = ablate("status", "quick", "--runs-dir", str(tmp_path)).out
    assert "data wait" not in status
    assert "images/s" not in status

    first = next(run for run in manifest.runs if run.factors["op"] == "elsa")
    measured(RunFolder(tmp_path / first.signature), data_wait=0.0213, peak_memory_bytes=3 * 2**30, mfu=0.31)
    paths = report(tmp_path, "quick", tmp_path / "now")
    assert {path.suffix for path in paths if path.stem == "speed"} == {".md", ".tex", ".csv"}
    rows = (tmp_path / "now" / "speed.md").read_text().splitlines()
    (elsa,) = [row for row in rows if row.startswith("| elsa")]
    (lsa,) = [row for row in rows if row.startswith("| lsa")]
    assert [cell.strip() for cell in elsa.split("|")[2:6]] == ["812", "2.1 %", "3.00 GiB", "31 %"]
    assert [cell.strip() for cell in lsa.split("|")[2:6]] == ["812", "–", "–", "–"]
    page = (tmp_path / "now" / "index.html").read_text()
    assert "Speed of training" in page
    assert "compile True, memory_format channels_last" in page
    assert "were not all trained in the same environment" in page
    # the table of conditions is that of records already committed: not one column more
    assert (tmp_path / "now" / "table.csv").read_text().splitlines()[0] == (
        (tmp_path / "earlier" / "table.csv").read_text().splitlines()[0]
    )
    status = ablate("status", "quick", "--runs-dir", str(tmp_path)).out
    assert all(title in status for title in ("images/s", "data wait", "memory", "MFU"))
    assert all(figure in status for figure in ("812", "2.1 %", "3.00 GiB", "31 %"))
