"""Faults on a real SLURM: nothing finished is lost, nothing computed twice, one retry completes the study."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.slurm.cluster import Cluster
from tests.slurm.study import Study

from ablate.execution.claim import living_holder
from ablate.store import jobs
from ablate.store.folder import RunFolder
from ablate.training import checkpoint

LONG = ("op=faulty", "op.fault=slow", "recipe.epochs=8", "infra.threads=1", "infra.launcher.time=5")


def attempts(study: Study) -> list[int]:
    return [standing.record["attempt"] for standing in study.overview().runs]


@pytest.fixture(scope="module")
def whole(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The long run, as it is when nothing happens to it."""
    alone = Study(cluster, tmp_path_factory.mktemp("whole"))
    alone.run(alone.command("train", *LONG, "recipe=debug", "data=synthetic", "infra.tracking=none"))
    (config,) = alone.runs_dir.glob("*/config.yaml")
    return RunFolder(config.parent)


def assert_same(folder: RunFolder, whole: RunFolder) -> None:
    """The same metrics, to the byte, and the same weights, to the bit."""
    assert folder.metrics_path.read_bytes() == whole.metrics_path.read_bytes()
    found, expected = (checkpoint.load(one.checkpoint_path)[0] for one in (folder, whole))
    assert found is not None
    assert expected is not None
    assert all(torch.equal(found.model[name], value) for name, value in expected.model.items())
    assert all(torch.equal(found.best[name], value) for name, value in expected.best.items())


def test_what_goes_wrong_in_a_run_stays_in_it(study: Study) -> None:
    """An exception, `os._exit`, a kill for lack of memory: in one job, with a run that goes well."""
    study.armed.touch()
    told = study.run(
        study.train("op=faulty", "op.fault=exit,raise,memory,none", "infra.launcher.runs_per_job=4")
    )
    assert "submitted as job arrays" in told
    overview = study.ended()
    assert overview.counts == {"failed": 3, "finished": 1}
    status = study.run(study.command("status", "study"))
    for words in ("exit code 7", "ArithmeticError: on purpose", "killed by SIGKILL; out of memory, perhaps"):
        assert words in status
    assert "ablate retry study" in status
    failed = next(s.run.signature for s in overview.runs if s.run.factors["op.fault"] == "raise")
    assert "on purpose" in study.run(study.command("logs", failed[:6]))
    study.armed.unlink()
    study.run(study.command("retry", "study"))
    assert study.ended().counts == {"finished": 4}
    assert sorted(attempts(study)) == [1, 2, 2, 2]


def test_what_failed_is_retried_while_its_job_is_still_at_work(study: Study) -> None:
    study.armed.touch()
    fixed = ("recipe.epochs=20", "infra.threads=1", "infra.launcher.runs_per_job=2")
    study.run(study.train("op=faulty", "op.fault=raise,slow", *fixed))
    study.wait(lambda overview: overview.counts["failed"] == 1 and overview.counts["running"] == 1)
    study.run(study.command("retry", "study"))
    assert len(jobs.of_study(study.runs_dir, "study")) == 2
    assert study.ended().counts == {"failed": 1, "finished": 1}  # it failed again, for it is set to
    assert attempts(study) == [2, 1]


def preempted(study: Study, folder: RunFolder) -> None:
    cores = str(os.cpu_count())
    study.cluster.tell(
        "sbatch", "-p", "high", "-c", cores, "--time=1", "-o", "/dev/null", "--wrap", "sleep 3"
    )


def requeued(study: Study, folder: RunFolder) -> None:
    study.cluster.tell("scontrol", "requeue", study.overview().queue.last[folder.signature])


def controller_away(study: Study, folder: RunFolder) -> None:
    study.cluster.stop_controller()
    status = study.run(study.command("status", "study"))
    assert "SLURM does not answer" in status
    assert "lost" not in status
    time.sleep(20)
    study.cluster.start_controller()


@pytest.mark.parametrize("fault", [preempted, requeued, controller_away])
def test_what_the_cluster_does_needs_nobody(fault: Callable, study: Study, whole: RunFolder) -> None:
    """The job comes back by itself and goes on, to the same bits."""
    study.armed.touch()
    study.run(study.train(*LONG))
    folder = study.under_way()
    struck = time.time()
    fault(study, folder)
    assert study.ended().counts == {"finished": 1}, study.overview().runs
    study.recovered(fault.__name__, folder, struck)
    assert_same(folder, whole)


def test_preemption_without_a_signal_needs_nobody(
    silent_cluster: Cluster, tmp_path: Path, whole: RunFolder, record_property: Callable
) -> None:
    """SIGTERM at the end of the partition's grace time is all that a job hears, SIGKILL what follows."""
    study = Study(silent_cluster, tmp_path, record_property)
    study.armed.touch()
    study.run(study.train(*LONG))
    folder = study.under_way()
    struck = time.time()
    preempted(study, folder)
    assert study.ended().counts == {"finished": 1}, study.overview().runs
    study.recovered("preempted without a signal", folder, struck)
    assert_same(folder, whole)


def test_a_clock_that_is_moved_makes_nothing_lost_and_nothing_twice(study: Study) -> None:
    """The run's heartbeat and times are two hours ahead of everybody else's."""
    study.armed.touch()
    asked = ("op=faulty", "op.fault=clock", "recipe.epochs=16", *LONG[3:])  # outlasts the second handing in
    study.run(study.train(*asked))
    claim = study.under_way().path / "claim.json"
    study.wait(lambda _: claim.stat().st_mtime > time.time() + 7000, seconds=30)  # its next heartbeat
    assert study.overview().counts == {"running": 1}
    again = study.run([*study.train(*asked), "hydra/launcher=local"])
    assert "1 running" in again, again
    assert study.ended().counts == {"finished": 1}
    assert attempts(study) == [1]


def cancelled(study: Study, folder: RunFolder) -> None:
    study.cluster.tell("scancel", study.overview().queue.last[folder.signature])


def cancelled_by_verb(study: Study, folder: RunFolder) -> None:
    assert "1 jobs cancelled" in study.run(study.command("cancel", "study"))


def killed(study: Study, folder: RunFolder) -> None:
    """The worker, in the middle of a checkpoint."""
    holder = living_holder(folder.path)
    assert holder is not None
    while not (half := list(folder.path.glob(".checkpoint.*.part"))):
        time.sleep(0.0005)
    os.kill(holder["pid"], signal.SIGKILL)
    assert half[0].exists()


def everything_killed(study: Study, folder: RunFolder) -> None:
    """The worker and the process of the job: nobody is left to write down what happened."""
    holder = living_holder(folder.path)
    assert holder is not None
    os.kill(holder["launcher"], signal.SIGKILL)
    os.kill(holder["pid"], signal.SIGKILL)


STATES = {
    cancelled: "interrupted",
    cancelled_by_verb: "interrupted",
    killed: "failed",
    everything_killed: "lost",
}


@pytest.mark.parametrize("fault", STATES)
def test_what_ends_a_job_is_said_and_one_retry_goes_on(
    fault: Callable, study: Study, whole: RunFolder
) -> None:
    study.armed.touch()
    study.run(study.train(*LONG, "infra.checkpoint_minutes=0.0001"))  # a checkpoint after every step
    folder = study.under_way()
    begun = time.monotonic()
    fault(study, folder)
    assert study.ended().counts == {STATES[fault]: 1}
    assert time.monotonic() - begun < 60
    epochs, asked = len(folder.metrics()), time.time()
    study.run(study.command("retry", "study"))
    assert study.ended().counts == {"finished": 1}
    study.recovered(fault.__name__, folder, asked)
    assert folder.status()["first_epoch"] >= epochs - 1
    assert_same(folder, whole)


def test_a_node_that_goes_down_costs_one_retry_at_most(study: Study, whole: RunFolder) -> None:
    study.armed.touch()
    study.run(study.train(*LONG))
    folder = study.under_way()
    node, struck = f"nodename={study.cluster.host}", time.time()
    study.cluster.tell("scontrol", "update", node, "state=down", "reason=test")
    for _ in range(10):  # SLURM drains it where the job comes back before its old processes have ended
        time.sleep(2)
        study.cluster.tell("scontrol", "update", node, "state=resume", check=False)
    if study.ended().counts != {"finished": 1}:
        assert "SLURM holds job" in study.run(study.command("status", "study"))
        struck = time.time()
        study.run(study.command("retry", "study"))
    assert study.ended().counts == {"finished": 1}
    study.recovered("node down", folder, struck)
    assert_same(folder, whole)


@pytest.mark.parametrize("signalled", [True, False], ids=["by SLURM", "by the job"])
def test_the_time_limit_is_met_with_a_checkpoint_and_the_way_back_into_the_queue(
    signalled: bool, study: Study, whole: RunFolder
) -> None:
    """SLURM's signal reaches nobody where it comes before the job has started its processes."""
    study.armed.touch()
    limit = ["infra.launcher.time=1", "infra.launcher.signal_seconds=30"]
    if not signalled:
        limit.append("+infra.launcher.sbatch.signal=USR1@1")
    study.run(study.train(*LONG[:2], "recipe.epochs=8", *limit))
    folder = study.under_way()
    # about 30 seconds an attempt, of which a busy machine needs ten to import PyTorch
    ended = study.wait(lambda overview: not overview.active, seconds=450)
    log = next(study.runs_dir.rglob("*_log.out")).read_text()
    assert ended.counts == {"finished": 1}, log
    if "SIGUSR2" in log:  # a fast machine may be done before
        assert folder.status()["attempt"] >= 2
    assert_same(folder, whole)


def test_a_launcher_that_is_killed_leaves_jobs_that_are_found(study: Study) -> None:
    launcher = subprocess.Popen(
        study.train("op=faulty", "seed=0,1"), cwd=study.folder, env=study.environment, stderr=subprocess.PIPE
    )
    records = jobs.folder(study.runs_dir, "study")
    while not list(records.glob("*.json")):
        assert launcher.poll() is None
        time.sleep(0.001)
    launcher.kill()
    launcher.wait()
    (record,) = jobs.of_study(study.runs_dir, "study")
    study.ended()
    if study.overview().counts != {"finished": 2}:  # it was killed before it handed anything in
        study.run(study.command("retry", "study"))
    else:
        assert all(array.count == 2 for array in record.arrays)
    assert study.ended().counts == {"finished": 2}
    assert attempts(study) == [1, 1]


def test_two_launchers_at_once_run_nothing_twice(study: Study) -> None:
    both = [
        subprocess.Popen(
            study.train("op=faulty", "seed=0,1,2,3,4,5"),
            cwd=study.folder,
            env=study.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [launcher.communicate(timeout=120)[1] for launcher in both]
    assert [launcher.returncode for launcher in both] == [0, 0], told
    assert study.ended().counts == {"finished": 6}
    assert attempts(study) == [1] * 6
    records = jobs.of_study(study.runs_dir, "study")
    assert sum(len(pack) for record in records for pack in record.packs) == 6
    assert max(array.count for record in records for array in record.arrays) <= 4  # MaxArraySize


def test_a_full_disk_fails_the_run_and_loses_nothing(study: Study) -> None:
    study.runs_dir.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "runs", study.runs_dir]).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        study.run(study.train("op=faulty", "recipe.epochs=40"))
        overview = study.ended()
        assert overview.counts == {"failed": 1}
        assert "No space left on device" in study.run(study.command("status", "study"))
        subprocess.run(["mount", "-o", "remount,size=500m", study.runs_dir], check=True)
        study.run(study.command("retry", "study"))
        assert study.ended().counts == {"finished": 1}
    finally:
        subprocess.run(["umount", "--lazy", study.runs_dir], check=False)


def test_code_is_frozen_where_asked_and_wandb_may_be_away(study: Study) -> None:
    study.environment["HOME"] = str(study.folder)
    study.environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    asked = ("infra.tracking=wandb", "infra.launcher.snapshot=true", "infra.launcher.wait=true")
    told = study.run(study.train("op=faulty", *asked))
    assert "1 finished" in told
    assert "W&B cannot be reached" in next(study.runs_dir.glob("*/output.log")).read_text()
    (record,) = jobs.of_study(study.runs_dir, "study")
    copy = Path(record.code["snapshot"])
    assert (copy / "ablate" / "execution" / "execute.py").exists()
    assert copy.is_relative_to(study.folder / ".cache" / "ablate" / "snapshots")
    assert not list(study.runs_dir.rglob("*.pkl"))


def test_several_processes_compute_a_run_and_survive_a_signal(study: Study) -> None:
    """Started by a worker, by SLURM in a job, and by hand with srun: the same bits."""
    asked = ("op=lsa", "recipe.epochs=6", "infra.threads=1")
    study.run(study.train(*asked, "infra.devices=2"))
    (done,) = study.ended().runs
    whole = RunFolder(study.runs_dir / done.run.signature)
    assert whole.finished(), whole.error()

    other = Study(study.cluster, study.folder.with_name(f"{study.folder.name}_tasks"), study.record)
    other.folder.mkdir()
    tasks = "infra.launcher.sbatch={ntasks-per-node: 2}"  # what infra.launcher.nodes=2 does to two machines
    other.run(other.train(*asked, tasks))
    folder = other.under_way()
    job = next(array.job for record in jobs.of_study(other.runs_dir, "study") for array in record.arrays)
    struck = time.time()
    study.cluster.tell("scancel", "--signal", "USR2", f"{job}_0")
    assert other.ended().counts == {"finished": 1}
    other.recovered("SIGUSR2 to a run of two processes", folder, struck)
    assert attempts(other) == [2]
    assert_same(folder, whole)

    by_hand = ["srun", "--ntasks", "2", *study.command("train", "recipe=debug", "data=synthetic", *asked)]
    study.run([*by_hand, "infra.tracking=none", "infra.runs_dir=by_hand"])
    assert_same(RunFolder(study.folder / "by_hand" / folder.signature), whole)
