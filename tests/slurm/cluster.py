"""A SLURM of one node for tests: its own folder, ports and key; root, no systemd, no accounting."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONFIGURATION = """
ClusterName=ablate
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
ReturnToService=2
JobRequeue=1
KillWait=5
MaxArraySize=4
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{extra}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes={host} MaxTime=60 PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)} here: apt-get install munge slurmctld slurmd slurm-client"
    return None if os.geteuid() == 0 else "a cluster for tests is started by root only"


class Cluster:
    """Started by `start`; `tell` runs SLURM's commands in it."""

    def __init__(self, folder: Path, announces_preemption: bool = True) -> None:
        self.folder, self.host = folder, socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        folder.chmod(0o755)
        controller, daemon = _free_ports(2)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 // 2**20
        extra = "SlurmctldParameters=preempt_send_user_signal" if announces_preemption else ""
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=self.host,
                controller=controller,
                daemon=daemon,
                folder=folder,
                cores=os.cpu_count(),
                memory=memory,
                extra=extra,
            )
        )
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """All daemons, until the node is idle."""
        names = ("key-file", "munge.key"), ("socket", "munge.socket"), ("pid-file", "munged.pid")
        files = [f"--{option}={self.folder / name}" for option, name in names]
        rest = [f"--log-file={self.folder / 'munged.log'}", f"--seed-file={self.folder / 'seed'}"]
        self.tell("munged", *files, *rest, "--num-threads=4", "--force")
        self.start_controller()
        self.tell("slurmd")
        deadline = time.monotonic() + 60
        while set(self.tell("sinfo", "-h", "-o", "%t", check=False).split()) != {"idle"}:
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)

    def start_controller(self) -> None:
        self.tell("slurmctld")

    def stop_controller(self) -> None:
        self._end("slurmctld")

    def stop(self) -> None:
        """All jobs, then all daemons."""
        self.tell("scancel", "-u", "root", check=False)
        time.sleep(1)
        for name in ("slurmd", "slurmctld", "munged"):
            self._end(name)

    def tell(self, *command: str, check: bool = True) -> str:
        """What a command prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def _end(self, name: str) -> None:
        path = self.folder / f"{name}.pid"
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            process = int(path.read_text())
            os.kill(process, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
                time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
