"""`ablate doctor`: what is available here and, if not, why and what to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ablate import data
from ablate.kernels.dispatch import hindrance
from ablate.ops import registry


@dataclass(frozen=True)
class Finding:
    """One thing that may be available."""

    name: str
    available: bool
    detail: str
    fell_back: bool = False  # an available device computes with PyTorch instead of its compiled kernels


def show(data_root: Path | None) -> bool:
    """Print all findings; return True if every device that is here computes with its compiled kernels.

    Other things that are missing are not errors: nothing here is needed by every study.
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    found = findings(data_root)
    for finding in found:
        mark = "[green]yes[/]" if finding.available else "[yellow]no[/]"
        table.add_row(
            finding.name, "[bold red]FELL BACK[/]" if finding.fell_back else mark, escape(finding.detail)
        )
    Console(highlight=False).print(table)
    return not any(finding.fell_back for finding in found)


def findings(data_root: Path | None) -> list[Finding]:
    """Every check in the order of the table."""
    checks: tuple[Callable[[], Finding], ...] = (_python, _torch, _cuda, _triton, _numba, _slurm, _wandb)
    sets = data.availability(data_root)
    return [
        *(check() for check in checks),
        *(Finding("plug-in", False, f"{name}: {reason}") for name, reason in registry.broken().items()),
        *(Finding(f"data {item.name}", item.available, item.detail) for item in sets),
    ]


def _python() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("Python", True, f"{platform.python_version()}, {cores} cores")


def _torch() -> Finding:
    import torch

    return Finding("PyTorch", True, f"{torch.__version__}, {torch.get_num_threads()} threads")


def _cuda() -> Finding:
    import torch

    if torch.cuda.is_available():
        cards = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("CUDA", True, cards)
    if torch.version.cuda is None:
        return Finding("CUDA", False, "this PyTorch was built without CUDA: install the build from PyPI")
    if shutil.which("nvidia-smi") is None:
        return Finding(
            "CUDA", False, f"PyTorch has CUDA {torch.version.cuda}, but no NVIDIA driver was found here"
        )
    return Finding("CUDA", False, "a driver is installed but PyTorch finds no card: see `nvidia-smi`")


def _triton() -> Finding:
    import torch

    card = torch.cuda.is_available()
    if (version := _version("triton")) is None:
        return Finding("Triton", False, "not installed; it comes with PyTorch on Linux", fell_back=card)
    if (reason := hindrance("cuda")) is not None:
        return Finding("Triton", False, f"{version}; {reason}", fell_back=card)
    from ablate.kernels.selfcheck import failures

    cards = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if wrong := [f"{failure} on {card}" for card in cards for failure in failures(card, again=True)]:
        detail = f"{version}; PyTorch computes on CUDA what fails: {'; '.join(wrong)}"
        return Finding("Triton", False, detail, fell_back=True)
    detail = f"{version}; computes sums and attention on CUDA, each compared with PyTorch"
    return Finding("Triton", True, detail)


def _numba() -> Finding:
    if (reason := hindrance("cpu")) is not None:
        return Finding("Numba", False, reason, fell_back=True)
    return Finding("Numba", True, f"{_version('numba')}; computes sums and attention on the CPU")


def _slurm() -> Finding:
    if shutil.which("sbatch") is None:
        return Finding(
            "SLURM", False, "no sbatch on PATH: use hydra/launcher=local, or a login node of the cluster"
        )
    try:
        done = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("SLURM", False, f"sbatch is there but sinfo does not answer: {error}")
    return Finding("SLURM", done.returncode == 0, (done.stdout or done.stderr).strip())


def _wandb() -> Finding:
    version = _version("wandb")
    if version is None:
        return Finding("W&B", False, "not installed: reinstall ablate, or use infra.tracking=none")
    netrc = Path("~/.netrc").expanduser()
    logged_in = "WANDB_API_KEY" in os.environ or (netrc.exists() and "api.wandb.ai" in netrc.read_text())
    login = "logged in" if logged_in else "not logged in: offline only until `wandb login`"
    return Finding("W&B", True, f"{version}, {login}")


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    return importlib.metadata.version(package)
