"""Step `code`: a launch of each kind under the memory checker, and machine code of the hottest kernels."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ablate.bench import aot
from ablate.bench.acceptance.steps import Setting
from ablate.bench.launches import META, Shape, launches, shapes

ARCHIVE = "kernels.tar.gz"  # cubin and PTX of each
CHECKED = (  # small maps: a checked launch takes a hundred times as long
    Shape("attention", 9, 32, 2, 3, attention=True),
    Shape("static factors", 9, 32, 2, 3, factors=("multiply", "add")),
    Shape("mixed", 9, 32, 2, 3, mixed=True),
)
HOTTEST = ("Swin-T stage 1 K=7", "ELSA-Swin-T stage 1 K=7", "Slide-Swin-T stage 1 K=3", "Swin-T stage 3 K=7")
MOST = 20
CAPABILITY = 90  # compiled for on a CPU


def run(setting: Setting) -> Iterator[dict[str, Any]]:
    """The machine code first: it is what the time after the card is worked with."""
    yield from _kept(setting)
    yield _checked(setting)


def launch_all(device: torch.device) -> None:
    """Run one launch of each kind; the memory checker's process does this."""
    for shape in CHECKED:
        for launch in launches(shape, torch.float32, device, batch=1):
            launch.run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _kept(setting: Setting) -> Iterator[dict[str, Any]]:
    """Registers, spills and shared memory of each; cubin and PTX into the archive."""
    capability = CAPABILITY
    if setting.device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(setting.device)
        capability = 10 * major + minor
    found = {shape.name: shape for shape in shapes()}
    wanted = [launch for name in HOTTEST for launch in launches(found[name], torch.bfloat16, META)]
    with tarfile.open(Path(setting.folder, ARCHIVE), "w:gz") as archive:
        for launch in wanted[: 1 if setting.toy else MOST]:
            name = aot.name_of(launch, torch.bfloat16, capability)
            compiled, used = aot.compiled_for(launch, capability), aot.measure(launch, capability)
            for kind in ("cubin", "ptx"):
                code = compiled.asm[kind]
                content = code if isinstance(code, bytes) else code.encode()
                _add(archive, f"{name.replace(' ', '_')}.{kind}", content)
            yield {"name": name, "passed": not used.spills, "detail": str(used)}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _checked(setting: Setting) -> dict[str, Any]:
    """True where compute-sanitizer finds no invalid access; no verdict where there is none."""
    head = {"name": "memory checker"}
    if setting.device.type != "cuda":
        return {**head, "passed": None, "detail": "needs a card"}
    if (tool := shutil.which("compute-sanitizer")) is None:
        return {**head, "passed": None, "detail": "compute-sanitizer is not installed"}
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-m", __name__]
    done = subprocess.run([*command, str(setting.device)], capture_output=True, text=True, check=False)
    print(done.stdout[-4000:], done.stderr[-4000:], sep="\n", flush=True)
    summary = [line for line in done.stdout.splitlines() if "ERROR SUMMARY" in line]
    detail = " ".join(summary) or f"exit code {done.returncode}"
    return {**head, "passed": done.returncode == 0, "detail": detail}


if __name__ == "__main__":
    launch_all(torch.device(sys.argv[1]))
