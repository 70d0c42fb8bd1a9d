"""Verdicts of the self-check: from disk, or from processes that check the kernels once."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from ablate.store.files import read_json, read_json_lines, write_json
from ablate.store.locks import locked

# The slowest to compile first: the others are checked beside them.
OPERATIONS = ("neighborhood_attention", "neighborhood_sums", "slide_attention")
MODULES = tuple(f"ablate.kernels.{operation}.triton" for operation in OPERATIONS)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
START = 300.0  # seconds until a process has loaded PyTorch and reached the device
PATIENCE = 300.0  # seconds that one kernel may then take to compile and run in all of its forms
POLL = 0.05  # seconds
WAIT = 1800.0  # seconds that another process may take to check all kernels of a card
SIDE_BY_SIDE = 16  # processes at most: each compiles on one core
UNCHECKED = 4  # exit code of `child.py` where the device cannot be used
CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")  # signals that a process sends to itself

_known: dict[tuple[str, torch.device, torch.dtype], dict[str, str | None]] = {}


class CheckableKernel(Protocol):
    """A kernel that can be compared with its reference; see `checked.Checked`."""

    name: str

    def failure(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Compare with the reference in this process; return what differs, or None."""
        ...


class Shard(NamedTuple):
    """One kernel in one precision, which one process checks."""

    module: str
    dtype: torch.dtype
    kernel: str

    @property
    def key(self) -> str:
        """Its name on disk."""
        return f"{self.kernel} {self.dtype}"


class Verdict(NamedTuple):
    """Failure of a kernel (None: it passed), and whether the verdict holds beyond this process."""

    reason: str | None
    lasting: bool = True


class CannotCheckError(RuntimeError):
    """A process of its own cannot use the device, so that it says nothing about the kernel."""


def of(module: str, device: torch.device, dtype: torch.dtype) -> dict[str, str | None]:
    """Return what is wrong with each kernel of a `triton` module; check them if nothing is on disk."""
    device = _indexed(device)
    if (module, device, dtype) not in _known:
        prepare(device, (dtype,), (module,))
    return _known[module, device, dtype]


def failures(device: torch.device, *, again: bool = False) -> list[str]:
    """Describe what is wrong with any kernel on a device, in any precision.

    Args:
        device: a card.
        again: True: check once more what failed before.
    """
    prepare(device, again=again)
    return [
        f"{name} with {dtype} {reason}"
        for module in MODULES
        for dtype in DTYPES
        for name, reason in of(module, device, dtype).items()
        if reason is not None
    ]


def prepare(
    device: torch.device,
    dtypes: Iterable[torch.dtype] = DTYPES,
    modules: Sequence[str] = MODULES,
    on_verdict: Callable[[str, torch.dtype, str | None], None] | None = None,
    *,
    again: bool = False,
) -> None:
    """Have the verdicts on all kernels at hand before they are needed.

    What is not on disk is checked by processes of its own, several at a time, and written as it comes. Where
    such a process cannot use the device (memory taken, one process per card), this process checks afterwards,
    and does not store the verdict.

    Args:
        device: a card.
        dtypes: precisions.
        modules: `triton` modules, each with its `KERNELS`.
        on_verdict: receives kernel, precision and what is wrong (None: nothing), one kernel after the other.
        again: True: check once more what failed before.
    """
    device, dtypes = _indexed(device), tuple(dtypes)
    shards = [
        Shard(module, dtype, k.name) for module in modules for dtype in dtypes for k in kernels_of(module)
    ]
    if not again and all((module, device, dtype) in _known for module, dtype, _ in shards) and not on_verdict:
        return
    path, found = verdict_file(device), dict[Shard, str | None]()

    def take(shard: Shard, verdict: Verdict) -> None:
        found[shard] = verdict.reason
        if verdict.lasting:
            _write(path, device, {shard.key: verdict.reason})
        if on_verdict is not None:
            on_verdict(shard.kernel, shard.dtype, verdict.reason)

    with _alone(path):
        kept = _on_disk(path)
        missing = [
            shard for shard in shards if shard.key not in kept or (again and kept[shard.key] is not None)
        ]
        for shard in shards:
            if shard not in missing:
                found[shard] = kept[shard.key]
                if on_verdict is not None:
                    on_verdict(shard.kernel, shard.dtype, kept[shard.key])
        if missing:
            begun = time.perf_counter()
            _say(f"checking the Triton kernels on {card(device)}, once for these versions and this code …")
            _check(device, missing, take)
            _say(f"checked in {time.perf_counter() - begun:.0f} s")
    for module, dtype, kernel in shards:
        _known.setdefault((module, device, dtype), {})[kernel] = found[Shard(module, dtype, kernel)]


def _check(device: torch.device, shards: list[Shard], take: Callable[[Shard, Verdict], None]) -> None:
    """Check in processes side by side; what they cannot check, in this one, when they have ended."""
    ended, refused = threading.Event(), []
    pool = ThreadPoolExecutor(min(SIDE_BY_SIDE, os.cpu_count() or 1, len(shards)))
    try:
        futures = {pool.submit(check_in_child, device, shard, ended): shard for shard in shards}
        for future in as_completed(futures):
            try:
                take(futures[future], future.result())
            except CannotCheckError:
                refused.append(futures[future])
    finally:
        ended.set()  # where this is left early, by Ctrl-C: no process outlives it
        pool.shutdown(cancel_futures=True)
    for shard in refused:
        [kernel] = [kernel for kernel in kernels_of(shard.module) if kernel.name == shard.kernel]
        take(shard, Verdict(kernel.failure(device, shard.dtype), lasting=False))


def verdict_file(device: torch.device) -> Path:
    """`selfcheck/<card>-<digest>.json` in the cache folder; the digest covers versions and code."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    slug = re.sub("[^a-z0-9]+", "-", card(device).lower()).strip("-")
    digest = hashlib.sha256(repr((card(device), sorted(versions().items()), code_digest())).encode())
    return home / "ablate" / "selfcheck" / f"{slug}-{digest.hexdigest()[:12]}.json"


def card(device: torch.device) -> str:
    """Name and compute capability of a device."""
    if device.type != "cuda":
        return device.type
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} ({major}.{minor})"


@cache
def versions() -> dict[str, str]:
    """Versions that a verdict depends on; those of what is not here are left out."""
    found = {"torch": str(torch.__version__), "cuda": str(torch.version.cuda)}
    if importlib.util.find_spec("triton") is not None:
        import triton

        found["triton"] = str(triton.__version__)
    if torch.cuda.is_available():
        found["driver"] = str(torch._C._cuda_getDriverVersion())  # type: ignore[attr-defined]
    return found


@cache
def code_digest() -> str:
    """Digest of the source files of all kernels and of this check."""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def kernels_of(module: str) -> tuple[CheckableKernel, ...]:
    """The kernels that a module lists in `KERNELS`."""
    found: tuple[CheckableKernel, ...] = importlib.import_module(module).KERNELS
    return found


def check_in_child(device: torch.device, shard: Shard, ended: threading.Event) -> Verdict:
    """Check one kernel in one precision in a process of its own, which it may kill, block or break.

    A verdict does not last where the cause may lie outside the kernel: a signal from another process, a full
    disk, a process that does not end.

    Raises:
        CannotCheckError: The process cannot use the device.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines, errors = Path(folder, "verdict.jsonl"), Path(folder, "errors.txt")
        code = _run_child(
            [shard.module, str(device), str(shard.dtype), str(lines), shard.kernel], errors, ended
        )
        written, _ = read_json_lines(lines)
        last = _last_line(errors)
    if code == UNCHECKED or (code != 0 and not written):
        raise CannotCheckError(last)
    if code == 0:
        return Verdict(written[-1]["reason"], lasting=written[-1]["lasting"])
    if code is None:
        return Verdict(f"does not end within {PATIENCE:.0f} s: {last}", lasting=False)
    if code > 0:
        return Verdict(f"ends its process with exit code {code}: {last}", lasting=False)
    name = signal.Signals(-code).name
    return Verdict(f"kills its process by {name}: {last}", lasting=name in CRASHES)


def _run_child(arguments: list[str], errors: Path, ended: threading.Event) -> int | None:
    """Run `child.py` and return its exit code; None if it had to be killed."""
    command = [sys.executable, "-P", "-m", "ablate.kernels.selfcheck.child", *arguments]
    found = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": found, "OMP_NUM_THREADS": "1"}
    lines = Path(arguments[3])
    with errors.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
    deadline, begun = time.monotonic() + START, False
    try:
        while time.monotonic() < deadline and not ended.is_set():
            with suppress(subprocess.TimeoutExpired):
                return process.wait(POLL)
            if not begun and lines.exists():
                deadline, begun = time.monotonic() + PATIENCE, True
        return None
    finally:
        process.kill()  # nothing, where it has ended
        process.wait()


def _last_line(errors: Path) -> str:
    """The last line that a process wrote, or a note that it wrote nothing."""
    written = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return written[-1][:200] if written else "it wrote nothing"


def _indexed(device: torch.device) -> torch.device:
    """`cuda` is the current card: tensors on it name it by its number."""
    if device == torch.device("cuda"):
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _on_disk(path: Path) -> dict[str, str | None]:
    """Every verdict of a file; none where it is missing or damaged."""
    kept = read_json(path)
    verdicts = kept.get("verdicts") if isinstance(kept, dict) else None
    if not isinstance(verdicts, dict) or not all(isinstance(said, str | None) for said in verdicts.values()):
        return {}
    return verdicts


def _write(path: Path, device: torch.device, verdicts: dict[str, str | None]) -> None:
    """Add verdicts to those on disk; ignore a cache that cannot be written."""
    content = {"card": card(device), "versions": versions(), "code": code_digest()}
    with suppress(OSError):
        write_json(path, {**content, "verdicts": {**_on_disk(path), **verdicts}})


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock, so that one process checks a card at a time; none where no cache can be written."""
    with ExitStack() as stack:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path.with_suffix(".lock"), WAIT))
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
