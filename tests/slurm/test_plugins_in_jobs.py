"""Plug-ins in jobs of a cluster: a package with everything of its own, and a file in a snapshot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.plugins import laboratory
from tests.plugins.laboratory import FILE, TINY, file_with_configuration, importable
from tests.slurm.cluster import Cluster

from ablate.store.folder import RunFolder
from ablate.studies import states

SLURM = ("hydra/launcher=slurm", "infra.launcher.time=5", "recipe=debug", *TINY)


def typed(cluster: Cluster, folder: Path, *arguments: str, **variables: str) -> str:
    home = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"), "COLUMNS": "250"}
    done = subprocess.run(
        [sys.executable, "-m", "ablate", *arguments],
        cwd=folder,
        env={**cluster.environment, "OMP_NUM_THREADS": "1", **home, **variables},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_package_with_everything_of_its_own(cluster: Cluster, tmp_path: Path) -> None:
    path = importable(laboratory.installed(tmp_path / "package"))
    more = ("infra.callbacks=[gradient]", "infra.launcher.runs_per_job=4", "infra.launcher.wait=true")
    said = typed(cluster, tmp_path, "train", "study=laboratory", *SLURM, *more, PYTHONPATH=path)
    assert "submitted as job arrays" in said
    overview = states.of_study(tmp_path / "runs", "laboratory")
    assert overview.counts == {"finished": 4}, overview.runs
    for standing in overview.runs:
        folder = RunFolder(tmp_path / "runs" / standing.run.signature)
        assert (folder.result() or {})["test_confidence"] > 50
        assert len(folder.callbacks()) == 2
    assert "my_point" in typed(cluster, tmp_path, "report", "laboratory", PYTHONPATH=path)


def test_a_file_travels_in_a_snapshot(cluster: Cluster, tmp_path: Path) -> None:
    """A job computes with the copy, whatever is edited while it waits, and its run is then stale."""
    file = file_with_configuration(tmp_path / "code")
    named = ("op=mine", "data=synthetic", "study.name=s", "infra.plugins=[code/mine_in_a_file.py]")
    waiting = ("infra.launcher.snapshot=true", "infra.launcher.sbatch={begin: now+20}")
    typed(cluster, tmp_path, "train", *named, *SLURM, *waiting)
    file.write_text(FILE.replace("self.layer(x)", "no_such_name"))
    (file.parent / "beside_it.py").write_text("1 / 0\n")
    typed(cluster, tmp_path, "status", "s", "--watch")
    (standing,) = states.of_study(tmp_path / "runs", "s").runs
    folder = RunFolder(tmp_path / "runs" / standing.run.signature)
    logs = [path.read_text()[-1500:] for path in (tmp_path / "runs").rglob("*log*") if path.is_file()]
    assert standing.state == "finished", "\n".join(logs)
    assert (folder.environment() or {})["code"]["paths"] == {
        "beside_it": os.fspath(file.with_name("beside_it.py")),
        "mine_in_a_file": os.fspath(file),
    }
    assert sorted(standing.stale) == ["beside_it", "mine_in_a_file"]
