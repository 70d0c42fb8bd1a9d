"""A pool of worker processes on this machine: one failure, or one dead worker, does not stop the rest."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate.errors import UserError
from ablate.execution import child
from ablate.execution.claim import LAUNCHER
from ablate.execution.interruption import INTERRUPTION, held_back
from ablate.execution.outcome import SUPERSEDED, Outcome
from ablate.execution.status import record_death
from ablate.store.folder import FAILED, INTERRUPTED, OUTPUT
from ablate.training.cores import SIDE_BY_SIDE, available

GPU_DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg", "/dev/kfd")  # NVIDIA's, WSL's, AMD's
GRACE_SECONDS = 60.0  # for workers to end their step and write a checkpoint

Event = tuple[str, str, Outcome | None]  # "started" or "ended", signature, outcome


class WorkerPool:
    """Worker processes that take runs from a common queue, each with its share of the cores."""

    def __init__(
        self, runs_dir: Path, signatures: Sequence[str], workers: int, infra: Mapping[str, Any]
    ) -> None:
        self.runs_dir, self.signatures, self.workers = runs_dir, list(signatures), workers
        self.devices = infra["devices"]
        self.threads = infra["threads"] or max(1, available() // (workers * self.devices))
        self.any_gpu = infra["device"] in ("auto", "cuda")
        self.waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for signature in self.signatures:
            self.waiting.put(signature)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.stopping = threading.Event()

    def run(self, on_event: Callable[[Event], None], on_idle: Callable[[], None]) -> dict[str, Outcome]:
        """Serve the queue and return every outcome. The callbacks run in this thread and may raise.

        Args:
            on_event: called when a run has started or ended.
            on_idle: called several times per second.

        Raises:
            KeyboardInterrupt: after the workers have recorded their interruption.
        """
        outcomes: dict[str, Outcome] = {}
        threads = [
            threading.Thread(target=self._serve, args=(slot,), daemon=True) for slot in range(self.workers)
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) or not self.events.empty():
                try:
                    event = self.events.get(timeout=0.5)
                except queue.Empty:
                    on_idle()
                    continue
                if event[2] is not None:
                    outcomes[event[1]] = event[2]
                on_event(event)
                on_idle()
        except BaseException:
            self._stop()
            raise
        return outcomes

    def _serve(self, slot: int) -> None:
        while not self.stopping.is_set():
            try:
                signature = self.waiting.get_nowait()
            except queue.Empty:
                break
            self.events.put(("started", signature, None))
            try:
                outcome = self._ask(slot, signature)
            except (OSError, ValueError) as error:  # no process could be started, or it answered nonsense
                outcome = Outcome(FAILED, f"the worker process cannot be used: {error}")
            if self.stopping.is_set():
                break
            self.events.put(("ended", signature, outcome))
            if outcome.no_room:  # the next run would fail for the same reason
                self._drop_waiting()
        if (process := self.processes.get(slot)) is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()

    def _ask(self, slot: int, signature: str) -> Outcome:
        path = self.runs_dir / signature
        process = self.processes.get(slot)
        if process is None or process.poll() is not None:
            process = self.processes[slot] = self._start(slot)
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if answer:
            outcome = Outcome(**json.loads(answer))
            if outcome.state == SUPERSEDED:
                _end(process)
            return outcome
        code = process.wait()
        if self.stopping.is_set() or code == INTERRUPTION:  # recorded by the worker itself
            return Outcome(INTERRUPTED)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        memory = "; out of memory, perhaps" if code == -signal.SIGKILL else ""
        reason = f"the worker process died without a message ({how}{memory}){_pointer(path / OUTPUT)}"
        with suppress(OSError, UserError):  # a full disk, or a lock that is not released
            record_death(path, reason)
        return Outcome(FAILED, reason)

    def _drop_waiting(self) -> None:
        with suppress(queue.Empty):
            while True:
                self.waiting.get_nowait()

    def _start(self, slot: int) -> subprocess.Popen[str]:
        share = str(self.threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": share,
            "MKL_NUM_THREADS": share,
            "NUMBA_NUM_THREADS": share,
            SIDE_BY_SIDE: str(self.workers),
            LAUNCHER: str(os.getpid()),
        }
        if self.any_gpu and _gpus() > 1:  # one card per worker, or as many as its runs need
            named = [card for card in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
            cards = named or [str(card) for card in range(_gpus())]
            mine = range(slot * self.devices, (slot + 1) * self.devices)
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(
                dict.fromkeys(cards[card % len(cards)] for card in mine)
            )
        with held_back():
            return subprocess.Popen(
                child.command("ablate.execution.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
                env=environment,
                process_group=0,  # Ctrl-C reaches this process only, which then stops the workers in order
            )

    def _stop(self) -> None:
        self.stopping.set()
        processes = list(self.processes.values())
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Wait until a process has ended by itself; kill it if it does not."""
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _pointer(log: Path) -> str:
    """Pointer to the log; an empty string if nothing was printed."""
    with suppress(OSError):
        if log.stat().st_size:
            return f"; see {OUTPUT}"
    return ""


def _gpus() -> int:
    if not any(Path(path).exists() for path in GPU_DRIVERS):
        return 0
    import torch  # takes seconds

    return torch.cuda.device_count()
