"""Step `code`: a launch of each kind under the memory checker, and machine code of the hottest kernels."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from ablate.bench import aot
from ablate.bench.acceptance import archive
from ablate.bench.acceptance.steps import Setting
from ablate.bench.launches import META, Shape, launches, shapes

ARCHIVE = "kernels.zip"  # cubin and PTX of each
CHECKED = (  # small maps: a checked launch takes a hundred times as long
    Shape("attention", 9, 32, 2, 3, attention=True),
    Shape("static factors", 9, 32, 2, 3, factors=("multiply", "add")),
    Shape("slide", 9, 32, 2, 3, slide=True),
)
CHECKER = "memory checker"
HOTTEST = (  # at the later stages the compiled kernels are the same
    *("Swin-T stage 1 K=7", "ELSA-Swin-T stage 1 K=7", "Slide-Swin-T stage 1 K=3"),
    *("Swin-T stage 1 inside", "I-D-DW-T stage 1"),
)
MOST = 20
CAPABILITY = 90  # compiled for on a CPU


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """Save the machine code first: later tuning needs it without a card.

    The memory checker runs meanwhile.
    """
    tool = shutil.which("compute-sanitizer")
    if setting.knows(CHECKER):
        yield from _saved(setting)
        return
    if setting.device.type != "cuda" or tool is None:
        yield from _saved(setting)
        why = "is not installed" if tool is None else "needs a card"
        yield {"name": CHECKER, "passed": None, "detail": f"compute-sanitizer {why}"}
        return
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-P", "-m", __name__]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        checker = subprocess.Popen([*command, str(setting.device)], stdout=output, stderr=output)
        yield from _saved(setting)
        code = checker.wait()
        output.seek(0)
        yield verdict(output.read(), code)


def verdict(output: str, code: int) -> dict[str, Any]:
    """The memory checker's record: passed if compute-sanitizer found no invalid access."""
    print(output[-8000:], flush=True)
    summary = [line for line in output.splitlines() if "ERROR SUMMARY" in line]
    detail = " ".join(summary) or f"exit code {code}"
    return {"name": CHECKER, "passed": code == 0, "detail": detail}


def launch_all(device: torch.device) -> None:
    """Run one launch of each kind; the memory checker's process does this."""
    for shape in CHECKED:
        for launch in launches(shape, torch.float32, device, batch=1):
            launch.run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def hottest(capability: int, most: int) -> dict[str, Any]:
    """Name of a compiled kernel → a launch of it; launches of several shapes come down to one kernel."""
    found = {shape.name: shape for shape in shapes()}
    wanted: dict[str, Any] = {}
    for name in HOTTEST:
        for launch in launches(found[name], torch.bfloat16, META):
            wanted.setdefault(aot.name_of(launch, torch.bfloat16, capability), launch)
    return dict(islice(wanted.items(), most))


def _saved(setting: Setting) -> Iterator[dict[str, Any]]:
    """Registers, spills and shared memory of each; cubin and PTX into the archive."""
    capability = CAPABILITY
    if setting.device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(setting.device)
        capability = 10 * major + minor
    for name, launch in hottest(capability, 1 if setting.toy else MOST).items():
        if setting.knows(name):
            continue
        try:
            _add(aot.compiled_for(launch, capability), name, setting)
            used = aot.measure(launch, capability)
        except Exception as error:  # the other kernels and the memory checker's verdict are recorded
            yield {"name": name, "passed": False, "detail": f"{type(error).__name__}: {str(error)[:300]}"}
        else:
            yield {"name": name, "passed": not used.spills, "detail": str(used)}


def _add(compiled: Any, name: str, setting: Setting) -> None:
    """Add cubin and PTX to the archive."""
    file = name.replace(" ", "_")
    codes = {f"{file}.{kind}": compiled.asm[kind] for kind in ("cubin", "ptx")}
    archive.add(
        setting.folder / ARCHIVE,
        {key: code if isinstance(code, bytes) else code.encode() for key, code in codes.items()},
    )


if __name__ == "__main__":
    launch_all(torch.device(sys.argv[1]))
