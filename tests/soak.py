"""Random faults for minutes, against the same study undisturbed: `make soak`, `python -m tests.soak --help`.

Launchers and workers are killed and asked to stop, suspended and continued, a suspended worker's run is
finished by what looks like another machine, and the disk is full for a while. At the end one undisturbed
command must complete each study. Printed are the faults, and of the runs: lost (not finished in the end),
twice (trained again after they had finished), different (metrics or weights that are not those of the
undisturbed run, to the bit). The exit code is 1 unless the last three are 0. Not part of `make test`.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from ablate.execution.claim import living_holder
from ablate.store.folder import RunFolder
from ablate.training import checkpoint

STUDY = "soak"
RUN = ("recipe=debug", "data=synthetic", "data.train=128", "recipe.epochs=6", f"study.name={STUDY}")
INFRA = ("infra.tracking=none", "infra.threads=1", "infra.device=cpu", "infra.checkpoint_minutes=0.01")
SWEEP = ("-m", "op=lsa,dwconv", "seed=0,1,2")
FILE_LIMIT = 50_000  # bytes of a file where no small disk can be mounted: no checkpoint fits
DISK = "64m"  # of a mounted one
# The run of a folder, by a process that looks like one of another machine and has little patience.
ELSEWHERE = """
import sys
from pathlib import Path
from ablate.execution import claim
claim._place = lambda: {"host": "elsewhere", "namespace": ""}
claim.OBSERVED_SECONDS = 2.0
from ablate.execution.execute import execute
from ablate.store.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print(execute(folder.path, folder.config()).state)
"""


class Soak:
    """One study in a folder of its own, under random faults."""

    def __init__(self, place: Path, seed: int, *, mounted: bool) -> None:
        self.place, self.random, self.mounted = place, random.Random(seed), mounted
        self.runs_dir = place / "runs"
        self.log = place.with_name(f"{place.name}.log").open("a")  # not on the disk that is filled
        self.counts: Counter[str] = Counter()
        self.finished: dict[str, int] = {}  # attempt with which a run finished, by signature
        self.twice: set[str] = set()
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(self, *arguments: str, limit: int | None = None) -> subprocess.Popen[bytes]:
        def lower() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.Popen(
            [sys.executable, "-m", "ablate", *arguments],
            cwd=self.place,
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
            preexec_fn=lower,
        )

    def train(self) -> tuple[str, ...]:
        workers = "infra.launcher.workers=2"
        return ("train", *SWEEP, *RUN, *INFRA, "hydra/launcher=local", workers, "infra.retry_failed=true")

    def retry(self) -> tuple[str, ...]:
        return ("retry", STUDY, "--launcher", "local")

    def folders(self) -> list[RunFolder]:
        return [RunFolder(path.parent) for path in sorted(self.runs_dir.glob("*/config.yaml"))]

    def watch(self) -> None:
        """Note what has finished, and what was trained again after it had."""
        for folder in self.folders():
            status = folder.status()
            before = self.finished.get(folder.signature)
            if before is not None and (status.get("attempt"), status["state"]) != (before, "finished"):
                self.twice.add(folder.signature)
            if status["state"] == "finished":
                self.finished.setdefault(folder.signature, status["attempt"])

    def at_work(self) -> list[tuple[RunFolder, int]]:
        """Runs at work on this machine, and their processes."""
        holders = ((folder, living_holder(folder.path)) for folder in self.folders())
        return [(folder, int(holder["pid"])) for folder, holder in holders if holder is not None]

    def worker(self) -> tuple[RunFolder, int] | None:
        found = self.at_work()
        return self.random.choice(found) if found else None

    # the faults; each returns without effect where there is nothing to strike

    def kill_launcher(self, launcher: subprocess.Popen[bytes]) -> bool:
        launcher.kill()
        return True

    def stop_launcher(self, launcher: subprocess.Popen[bytes]) -> bool:
        launcher.send_signal(self.random.choice([signal.SIGTERM, signal.SIGINT]))
        return True

    def kill_worker(self, launcher: subprocess.Popen[bytes]) -> bool:
        return self._signal(self.worker(), self.random.choice([signal.SIGKILL, signal.SIGUSR2]))

    def suspend_worker(self, launcher: subprocess.Popen[bytes]) -> bool:
        struck = self.worker()
        suspended = self._signal(struck, signal.SIGSTOP)
        time.sleep(self.random.uniform(0.5, 3))
        return self._signal(struck, signal.SIGCONT) and suspended

    def finish_elsewhere(self, launcher: subprocess.Popen[bytes]) -> bool:
        """A worker is suspended, its run finished by another machine, and the worker continued after."""
        struck = self.worker()
        if struck is None or not self._signal(struck, signal.SIGSTOP):
            return False
        try:
            command = [sys.executable, "-c", ELSEWHERE, str(struck[0].path)]
            subprocess.run(command, env=self.environment, stdout=self.log, stderr=self.log, timeout=120)
            self.watch()
        finally:
            self._signal(struck, signal.SIGCONT)
        time.sleep(1)
        return True

    def fill_disk(self, launcher: subprocess.Popen[bytes]) -> bool:
        """Until the launcher ends, or for some seconds."""
        if not self.mounted:
            return False
        filler = self.place / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(2**16))
        deadline = time.monotonic() + self.random.uniform(1, 5)
        while launcher.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        filler.unlink()
        return True

    @property
    def faults(self) -> dict[Callable[[subprocess.Popen[bytes]], bool], int]:
        """With their weights."""
        return {
            self.kill_launcher: 3,
            self.stop_launcher: 2,
            self.kill_worker: 5,
            self.suspend_worker: 3,
            self.finish_elsewhere: 1,
            self.fill_disk: 2,
        }

    def _signal(self, struck: tuple[RunFolder, int] | None, number: signal.Signals) -> bool:
        with suppress(ProcessLookupError):
            if struck is not None:
                os.kill(struck[1], number)
                return True
        return False

    def round(self, until: float) -> None:
        """One launcher, with faults until it ends."""
        limited = not self.mounted and self.random.random() < 0.2
        self.counts["full disks"] += limited
        retry = self.runs_dir.exists() and self.random.random() < 0.5
        arguments = self.retry() if retry else self.train()
        launcher = self.start(*arguments, limit=FILE_LIMIT if limited else None)
        self.counts["launchers"] += 1
        while launcher.poll() is None and time.monotonic() < until:
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(self.random.uniform(0.5, 6))
            self.watch()
            if launcher.poll() is None:
                names, weights = zip(*self.faults.items(), strict=True)
                (fault,) = self.random.choices(names, weights)
                self.counts[fault.__name__.replace("_", " ")] += fault(launcher)
                self.watch()
        self.end(launcher)

    def end(self, launcher: subprocess.Popen[bytes]) -> None:
        """Wait for the launcher to stop, and for orphans to notice."""
        launcher.terminate()
        with suppress(subprocess.TimeoutExpired):
            launcher.wait(90)
        launcher.kill()
        launcher.wait()
        deadline = time.monotonic() + 30
        while self.at_work() and time.monotonic() < deadline:
            time.sleep(0.2)
        self.watch()

    def complete(self) -> None:
        """What a user does in the end: submit once more, without a fault."""
        self.start(*self.train()).wait()
        self.watch()

    def compare(self, whole: dict[str, RunFolder]) -> tuple[int, int]:
        """Runs that are lost, and that are different from the undisturbed ones."""
        lost, different = set(whole), 0
        for folder in self.folders():
            if folder.signature in whole and folder.finished():
                lost.discard(folder.signature)
                different += not same(folder, whole[folder.signature])
        return len(lost), different


class SlurmSoak(Soak):
    """The same with jobs on the SLURM of tests/slurm."""

    def train(self) -> tuple[str, ...]:
        packs = ("infra.launcher.runs_per_job=2", "infra.launcher.time=10", "infra.launcher.wait=true")
        return ("train", *SWEEP, *RUN, *INFRA, "hydra/launcher=slurm", *packs, "infra.retry_failed=true")

    def retry(self) -> tuple[str, ...]:
        return ("retry", STUDY, "infra.launcher.wait=true")

    def requeue(self, launcher: subprocess.Popen[bytes]) -> bool:
        printed = subprocess.run(
            ["squeue", "-h", "-r", "-o", "%i"], env=self.environment, capture_output=True, text=True
        )
        jobs = printed.stdout.split()
        if not jobs:
            return False
        subprocess.run(["scontrol", "requeue", self.random.choice(jobs)], env=self.environment, check=False)
        return True

    @property
    def faults(self) -> dict[Callable[[subprocess.Popen[bytes]], bool], int]:
        kept = {fault: weight for fault, weight in super().faults.items() if fault != self.stop_launcher}
        return {**kept, self.requeue: 2}

    def round(self, until: float) -> None:
        super().round(until)
        subprocess.run(["scancel", "-u", "root"], env=self.environment, check=False)
        time.sleep(5)

    def complete(self) -> None:
        """Jobs of the last round may still be in the queue, so that one retry may follow."""
        super().complete()
        self.start(*self.retry()).wait()
        self.watch()


def same(one: RunFolder, other: RunFolder) -> bool:
    """The same metrics, to the byte, and the same weights, to the bit."""
    found, expected = (checkpoint.load(folder.checkpoint_path)[0] for folder in (one, other))
    if found is None or expected is None or one.metrics_path.read_bytes() != other.metrics_path.read_bytes():
        return False
    pairs = ((found.model, expected.model), (found.best, expected.best))
    return all(torch.equal(mine[name], theirs[name]) for mine, theirs in pairs for name in theirs)


@contextmanager
def disk(place: Path) -> Iterator[bool]:
    """Mount a small disk on a folder; yields False where that is not allowed."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=False)


@contextmanager
def cluster(folder: Path, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    from tests.slurm.cluster import Cluster, missing

    if (reason := missing()) is not None:
        sys.exit(reason)
    found = Cluster(folder)
    found.start()
    os.environ["SLURM_CONF"] = found.environment["SLURM_CONF"]
    try:
        yield
    finally:
        found.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--slurm", action="store_true", help="with jobs of a SLURM that is started (root)")
    parser.add_argument("--keep", type=Path, help="a new folder for everything, which is kept")
    arguments = parser.parse_args()
    draws = random.Random(arguments.seed)
    counts: Counter[str] = Counter()
    runs = lost = twice = different = studies = 0
    with tempfile.TemporaryDirectory(prefix="ablate-soak-") as scratch:
        root = arguments.keep or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        with cluster(root / "slurm", arguments.slurm):
            (root / "whole").mkdir()
            undisturbed = Soak(root / "whole", 0, mounted=False)
            undisturbed.complete()
            whole = {folder.signature: folder for folder in undisturbed.folders()}
            if not whole or not all(folder.finished() for folder in whole.values()):
                sys.exit(f"the undisturbed study failed; see {undisturbed.log.name}, with --keep")
            until = time.monotonic() + 60 * arguments.minutes
            while time.monotonic() < until:
                place = root / f"study {studies}"
                with disk(place) as mounted:
                    kind = SlurmSoak if arguments.slurm else Soak
                    soak = kind(place, draws.getrandbits(32), mounted=mounted)
                    begun = time.monotonic()
                    while len(soak.finished) < len(whole) and time.monotonic() < min(until, begun + 240):
                        soak.round(until)
                    soak.complete()
                    missing, changed = soak.compare(whole)
                studies, runs = studies + 1, runs + len(whole)
                lost, twice, different = lost + missing, twice + len(soak.twice), different + changed
                counts += soak.counts
                print(
                    f"{place.name}: {dict(soak.counts)}; {missing} lost, {len(soak.twice)} twice, "
                    f"{changed} different",
                    flush=True,
                )
    print(f"seed {arguments.seed}: {studies} studies, {runs} runs")
    for name, count in sorted(counts.items()):
        print(f"  {count:4} {name}")
    print(f"{lost} lost, {twice} twice, {different} different")
    sys.exit(1 if lost or twice or different else 0)


if __name__ == "__main__":
    main()
