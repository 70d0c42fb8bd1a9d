"""A submission: the checked and frozen runs of one command, listed by what is left to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.launch.freezing import QUEUED, READY
from ablate.store.folder import FAILED, FINISHED, RUNNING, RunFolder
from ablate.store.manifest import Manifest


@dataclass
class Submission:
    """A checked and frozen study."""

    runs_dir: Path
    manifest: Manifest
    configs: dict[str, dict[str, Any]]  # by signature
    ready: list[str] = field(default_factory=list)  # signatures of the runs to start now
    finished: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)  # in jobs of the cluster
    failed: list[str] = field(default_factory=list)  # before; retried only when requested

    @property
    def infra(self) -> Mapping[str, Any]:
        """Settings of `infra`, the same for all runs of one command."""
        found: Mapping[str, Any] = next(iter(self.configs.values()))["infra"]
        return found

    def folder(self, signature: str) -> RunFolder:
        """Folder of one of the runs."""
        return RunFolder(self.runs_dir / signature)

    def title(self, signature: str) -> str:
        """Short name of a run: its factors and seed."""
        run = next(run for run in self.manifest.runs if run.signature == signature)
        config = self.configs[signature]
        levels = [f"{key.replace('/', '.').rsplit('.', 1)[-1]}={value}" for key, value in run.factors.items()]
        return f"{' '.join(levels) or config['op']['name']} seed={run.seed}"

    def counts(self) -> Counter[str]:
        """Number of runs by what is known of them, in the words of the first line of a launch."""
        known = {
            "finished before": self.finished,
            "running elsewhere": self.running,
            "in jobs of the cluster": self.queued,
            "failed before": self.failed,
            "to run": self.ready,
        }
        return Counter({words: len(signatures) for words, signatures in known.items() if signatures})

    def add(self, signature: str, state: str) -> None:
        """List a run under the state that `freeze` found."""
        lists = {
            READY: self.ready,
            FINISHED: self.finished,
            RUNNING: self.running,
            QUEUED: self.queued,
            FAILED: self.failed,
        }
        lists[state].append(signature)
