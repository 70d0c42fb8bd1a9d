"""A study on a SLURM of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tests.slurm.cluster import Cluster

from ablate.store.folder import RunFolder
from ablate.studies import states

HERE = Path(__file__).parent
RECOVERY = "recovery"  # property of a report: the fault, and the seconds until the run trained again


class Study:
    """A study on the cluster, by the command line as a user types it."""

    def __init__(
        self, cluster: Cluster, folder: Path, record: Callable[[str, object], None] = lambda name, value: None
    ) -> None:
        self.record = record  # pytest's `record_property`
        self.cluster, self.folder, self.runs_dir = cluster, folder, folder / "runs"
        self.armed = folder / "armed"  # faults happen while this file is there
        self.environment = {
            **cluster.environment,
            "ABLATE_OPERATORS": "faulty",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
            "ABLATE_TEST_ARMED": str(self.armed),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "250",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "ablate", *arguments]

    def train(self, *overrides: str) -> list[str]:
        fixed = ["recipe=debug", "data=synthetic", "study.name=study", "infra.tracking=none"]
        return self.command("train", "-m", "hydra/launcher=slurm", *fixed, *overrides)

    def run(self, command: list[str], code: int = 0) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout + done.stderr

    def overview(self) -> states.Overview:
        return states.of_study(self.runs_dir, "study")

    def wait(self, until: Callable[[states.Overview], bool], seconds: float = 150) -> states.Overview:
        deadline = time.monotonic() + seconds
        while not until(overview := self.overview()):
            if time.monotonic() > deadline:
                logs = [path.read_text()[-1500:] for path in self.runs_dir.rglob("*log*") if path.is_file()]
                raise AssertionError(
                    f"{overview.counts} {[s.note for s in overview.runs]}\n" + "\n".join(logs)
                )
            time.sleep(0.3)
        return overview

    def recovered(self, fault: str, folder: RunFolder, struck: float) -> None:
        """Note how long a run stood still that is at its second attempt now; one at its first never did."""
        status = folder.status()
        started = datetime.fromisoformat(status["started"]).timestamp()
        seconds = max(0.0, started - struck) if status["attempt"] > 1 else 0.0
        self.record(RECOVERY, (fault, seconds))

    def ended(self) -> states.Overview:
        """Once nothing is at work or in a job."""
        return self.wait(lambda overview: not overview.active)

    def under_way(self) -> RunFolder:
        """The first run, once it has trained some epochs."""
        self.wait(lambda overview: any((s.record.get("epoch") or 0) >= 2 for s in overview.runs))
        signature = next(s.run.signature for s in self.overview().runs if (s.record.get("epoch") or 0) >= 2)
        return RunFolder(self.runs_dir / signature)
