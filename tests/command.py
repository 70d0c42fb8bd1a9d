"""Run commands as a user types them, each in a process of its own.

Such a process would import PyTorch, timm and Hydra for several seconds. It is forked instead from one that
has imported the libraries, but nothing of `ablate`, and has no thread: its plug-ins, environment and current
folder are those of the command alone. The tests of the installed package and of signals start Python.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory

LIBRARIES = [
    *("torch._dynamo", "torch.utils.flop_counter", "timm", "torchvision", "hydra.main", "submitit"),
    *("pandas", "scipy.optimize", "matplotlib.figure"),
]
_started: list[ForkServerContext] = []


def run(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m ablate` in a folder, with variables beside those of this process.

    Raises:
        subprocess.TimeoutExpired: it was killed after `timeout` seconds.
    """
    variables = {**os.environ, **(environment or {})}
    with TemporaryDirectory() as place:
        out, err = Path(place) / "out", Path(place) / "err"
        process = _context().Process(
            target=_command, args=(arguments, str(folder), variables, str(out), str(err))
        )
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout, out.read_text(), err.read_text())
        code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def _context() -> ForkServerContext:
    if not _started:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        _started.append(context)
    return _started[0]


def _command(arguments: tuple[str, ...], folder: str, variables: dict[str, str], out: str, err: str) -> None:
    for path, stream in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    paths = [path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [folder, *paths]
    sys.argv = ["ablate", *arguments]
    runpy.run_module("ablate", run_name="__main__", alter_sys=True)
