"""Verdicts of the self-check: from disk, or from processes that check the kernels once."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ablate.store.files import locked, read_json, read_json_lines, write_json

if TYPE_CHECKING:
    from ablate.ops.kernels.selfcheck.checked import Checked

MODULES = tuple(f"ablate.ops.kernels.{kernel}.cuda" for kernel in ("sums", "attention", "mixed"))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
START = 300.0  # seconds until a process has loaded PyTorch and reached the device
PATIENCE = 300.0  # seconds that one kernel may then take to compile and run in all of its forms
POLL = 0.05  # seconds
SIDE_BY_SIDE = 8  # processes at most: each compiles on one core
POISONED, UNCHECKED = 3, 4  # exit codes of `child.py`

Verdicts = dict[str, str | None]  # kernel → what is wrong with it, None where nothing is
_known: dict[tuple[str, torch.device, torch.dtype], Verdicts] = {}


class CannotCheckError(RuntimeError):
    """A process of its own cannot use the device, so that it says nothing about the kernels."""


def of(module: str, device: torch.device, dtype: torch.dtype) -> Verdicts:
    """Return the verdicts on the kernels of one `cuda` module; check them if nothing is on disk."""
    if (module, device, dtype) not in _known:
        prepare(device, (dtype,), (module,))
    return _known[module, device, dtype]


def failures(device: torch.device) -> list[str]:
    """Describe what is wrong with any kernel on a device, in any precision."""
    prepare(device)
    return [
        f"{name} with {dtype} {reason}"
        for module in MODULES
        for dtype in DTYPES
        for name, reason in of(module, device, dtype).items()
        if reason is not None
    ]


def prepare(
    device: torch.device, dtypes: Iterable[torch.dtype] = DTYPES, modules: Sequence[str] = MODULES
) -> None:
    """Have the verdicts on all kernels at hand before they are needed.

    What is not on disk is checked by processes of its own, several at a time. Where such a process cannot
    use the device (memory taken, one process per card), this one checks, and keeps the verdict to itself.
    """
    wanted = [(module, dtype) for module in modules for dtype in dtypes]
    missing = [(module, dtype) for module, dtype in wanted if (module, device, dtype) not in _known]
    if not missing:
        return
    path = verdict_file(device)
    with _alone(path):
        missing = [shard for shard in missing if not _read(path, device, *shard)]
        if not missing:
            return
        begun = time.perf_counter()
        _say(f"checking the Triton kernels on {card(device)}, once for these versions and this code …")
        with ThreadPoolExecutor(min(SIDE_BY_SIDE, os.cpu_count() or 1, len(missing))) as pool:
            found = list(pool.map(lambda shard: _checked(device, *shard), missing))
        for (module, dtype), (verdicts, _) in zip(missing, found, strict=True):
            _known[module, device, dtype] = verdicts
        _write(path, device, [shard for shard, (_, lasting) in zip(missing, found, strict=True) if lasting])
        _say(f"checked in {time.perf_counter() - begun:.0f} s")


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
    with suppress(metadata.PackageNotFoundError):
        found["triton"] = metadata.version("triton")
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


def kernels_of(module: str) -> tuple[Checked, ...]:
    """The kernels that a module lists in `KERNELS`."""
    found: tuple[Checked, ...] = importlib.import_module(module).KERNELS
    return found


def _checked(device: torch.device, module: str, dtype: torch.dtype) -> tuple[Verdicts, bool]:
    """The verdicts, and whether they hold beyond this process."""
    try:
        return check_in_children(device, module, dtype), True
    except CannotCheckError:
        return {kernel.name: kernel.failure(device, dtype) for kernel in kernels_of(module)}, False


def check_in_children(device: torch.device, module: str, dtype: torch.dtype) -> Verdicts:
    """Check the kernels of a module in processes of their own.

    A kernel that kills or blocks its process, or breaks the device for it, is told from the others, which
    are checked in a new process.

    Raises:
        CannotCheckError: The process cannot use the device.
    """
    found: Verdicts = {}
    names = [kernel.name for kernel in kernels_of(module)]
    while left := [name for name in names if name not in found]:
        with tempfile.TemporaryDirectory() as folder:
            lines, errors = Path(folder, "verdicts.jsonl"), Path(folder, "errors.txt")
            died = _run_child([module, str(device), str(dtype), str(lines), *left], lines, errors)
            said, _ = read_json_lines(lines)
            found |= {line["kernel"]: line["reason"] for line in said if "kernel" in line}
            begun = said[-1].get("begun") if said else None
            if died is None:
                continue
            if begun is None:
                raise CannotCheckError(f"{died}: {_last_line(errors)}")
            found[begun] = f"{died}: {_last_line(errors)}"
    return found


def _run_child(arguments: list[str], lines: Path, errors: Path) -> str | None:
    """Run `child.py`; return how it died, or None if it ended by itself."""
    command = [sys.executable, "-m", "ablate.ops.kernels.selfcheck.child", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with errors.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
    size, deadline = 0, time.monotonic() + START
    try:
        while process.poll() is None:
            time.sleep(POLL)
            now = lines.stat().st_size if lines.exists() else 0
            if now > size:
                size, deadline = now, time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                return f"does not end within {PATIENCE:.0f} s"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode in (0, POISONED):
        return None
    if process.returncode == UNCHECKED:
        raise CannotCheckError(_last_line(errors))
    if process.returncode < 0:
        return f"kills its process by {signal.Signals(-process.returncode).name}"
    return f"ends its process with exit code {process.returncode}"


def _last_line(errors: Path) -> str:
    """The last line that a process wrote, or what to say where it wrote none."""
    written = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return written[-1][:200] if written else "it wrote nothing"


def _read(path: Path, device: torch.device, module: str, dtype: torch.dtype) -> bool:
    """Take verdicts from disk; True if all kernels of the module have one."""
    verdicts = _on_disk(path)
    names = {kernel.name: f"{kernel.name} {dtype}" for kernel in kernels_of(module)}
    if not all(key in verdicts for key in names.values()):
        return False
    _known[module, device, dtype] = {name: verdicts[key] for name, key in names.items()}
    return True


def _on_disk(path: Path) -> Verdicts:
    """Every verdict of a file; none where it is missing or damaged."""
    kept = read_json(path)
    verdicts = kept.get("verdicts") if isinstance(kept, dict) else None
    if not isinstance(verdicts, dict) or not all(isinstance(said, str | None) for said in verdicts.values()):
        return {}
    return verdicts


def _write(path: Path, device: torch.device, shards: list[tuple[str, torch.dtype]]) -> None:
    """Add verdicts to those on disk; a cache that cannot be written is done without."""
    verdicts = _on_disk(path)
    for module, dtype in shards:
        for name, reason in _known[module, device, dtype].items():
            verdicts[f"{name} {dtype}"] = reason
    with suppress(OSError):
        write_json(
            path,
            {"card": card(device), "versions": versions(), "code": code_digest(), "verdicts": verdicts},
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Alone among the processes that check the same card, so that only one of them computes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = locked(path.with_suffix(".lock"))
        lock.__enter__()
    except OSError:  # no cache folder can be written
        yield
        return
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
