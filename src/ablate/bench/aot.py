"""Registers and shared memory of the Triton kernels, from compiling them ahead of time without a GPU.

Registers and shared memory bound how many programs a multiprocessor runs at once; a stack or local
memory means that registers were spilled. All published networks come down to a few dozen compiled
kernels, because the size of a map and the number of heads are not part of one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import pkgutil
import re
import subprocess
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablate.bench.launches import FACTORS, Shape, launches, shapes
from ablate.errors import UserError
from ablate.kernels._triton import assembler
from ablate.store.files import write_text

OPTIONAL = (*FACTORS, "axial")  # operands without which a kernel is another
GOLDEN = Path("tests/kernels/aot")  # one file for each version of Triton
CAPABILITIES = (80, 90, 100)  # A100, H100 and H200, B200
DTYPES = (torch.float32, torch.bfloat16)
WARP = 32  # threads
TENSOR_MEMORY = 512  # columns, of a multiprocessor of compute capability 10; Triton makes a trap of more
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
}


@dataclass(frozen=True)
class Resources:
    """Resources of one thread (registers, stack, local: bytes) and of one program (shared: bytes; warps)."""

    registers: int
    stack: int
    local: int
    shared: int
    warps: int

    @property
    def spills(self) -> bool:
        """True if a thread keeps anything outside its registers."""
        return self.stack + self.local > 0


def resources(
    of: Iterable[Shape] | None = None,
    dtypes: Sequence[torch.dtype] = DTYPES,
    capabilities: Sequence[int] = CAPABILITIES,
) -> dict[str, Resources]:
    """Every compiled kernel that the shapes need (default: all), by name; half a second for each."""
    needed = names(of, dtypes, capabilities)
    return {name: measure(launch, capability) for name, (launch, capability) in needed.items()}


def names(
    of: Iterable[Shape] | None = None,
    dtypes: Sequence[torch.dtype] = DTYPES,
    capabilities: Sequence[int] = CAPABILITIES,
) -> dict[str, tuple[Any, int]]:
    """The name of every compiled kernel that the shapes need, and one call of it for one capability."""
    found = {}
    for shape in shapes() if of is None else of:
        for dtype in dtypes:
            for launch in launches(shape, dtype):
                for capability in capabilities:
                    found[name_of(launch, dtype, capability)] = (launch, capability)
    return dict(sorted(found.items()))


def name_of(launch: Any, dtype: torch.dtype, capability: int) -> str:
    """Name of a compiled kernel: everything that distinguishes it from the others."""
    kernel = launch.kernel.__name__.removesuffix("_kernel")
    constants = " ".join(f"{name.lower()}={value}" for name, value in launch.constants.items())
    can_lack = (*OPTIONAL, "bias") if kernel.startswith("scores") else OPTIONAL
    optional = "".join(f" {name}" for name in can_lack if launch.arguments.get(name) is not None)
    return f"{kernel}{optional} {str(dtype).removeprefix('torch.')} sm_{capability} {constants}"


def measure(launch: Any, capability: int) -> Resources:
    """Compile for a GPU of this compute capability (90 is 9.0) and read what the machine code needs.

    Raises:
        ValueError: More tensor memory than there is.
    """
    compiled = compiled_for(launch, capability)
    if (columns := getattr(compiled.metadata, "tmem_size", 0)) > TENSOR_MEMORY:
        raise ValueError(
            f"{launch.kernel.__name__} takes {columns} columns of tensor memory, not {TENSOR_MEMORY}"
        )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [_tool("cuobjdump"), "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}
    return Resources(
        used["REG"],
        used["STACK"],
        used["LOCAL"],
        compiled.metadata.shared,
        launch.options(capability)["num_warps"],
    )


def compiled_for(launch: Any, capability: int) -> Any:
    """Triton's compiled kernel, as it is made at run time for tensors that begin at multiples of 16 bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, aligned = {}, {}
    for place, name in enumerate(launch.kernel.arg_names):
        argument = launch.arguments.get(name)
        if isinstance(argument, Tensor):
            signature[name] = TYPES[argument.dtype]
            aligned[place,] = [["tt.divisibility", 16]]
        elif argument is None:  # also what is absent: a constexpr parameter
            signature[name] = "constexpr"
        else:
            signature[name] = "i32" if isinstance(argument, int) else "fp32"
    absent = {name: None for name, argument in launch.arguments.items() if argument is None}
    source = ASTSource(launch.kernel, signature, launch.constants | absent, aligned)
    target = GPUTarget("cuda", capability, WARP)
    return triton.compile(source, target=target, options=launch.options(capability))


@dataclass(frozen=True)
class Golden:
    """The committed figures of one version of Triton."""

    triton: str
    code: str  # digest of what was compiled
    kernels: dict[str, Resources]


def golden_file() -> Path:
    """File of the figures of the installed Triton."""
    import triton

    return GOLDEN / f"{triton.__version__}.json"


def read_golden(path: Path) -> Golden:
    """Read committed figures.

    Raises:
        UserError: No such file, or a damaged one.
    """
    try:
        read = json.loads(path.read_text())
        kernels = {name: Resources(*used) for name, used in read["kernels"].items()}
        return Golden(read["triton"], read["code"], kernels)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read the golden figures in {path}: {error}", "run `make aot`") from error


def write_golden(path: Path, found: dict[str, Resources]) -> None:
    """Commit to the figures of every compiled kernel."""
    import triton

    names_of_fields = [field.name for field in fields(Resources)]
    kernels = ",\n".join(f"  {json.dumps(name)}: {json.dumps(astuple(used))}" for name, used in found.items())
    head = {"triton": triton.__version__, "code": code_digest(), "fields": names_of_fields}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f'{json.dumps(head)[:-1]}, "kernels": {{\n{kernels}\n}}}}\n')


def code_digest() -> str:
    """Digest of what is compiled: the kernels' functions without comments, and how each is launched."""
    digest = hashlib.sha256()
    for name, source in sorted(_sources().items()):
        digest.update(f"{name}\0{source}\0".encode())
    for name, (launch, capability) in names().items():
        limits = launch.warps, launch.stages, launch.registers, *assembler.ruled(launch, capability)
        digest.update(f"{name} {limits}\0".encode())
    return digest.hexdigest()[:16]


def _sources() -> dict[str, str]:
    """Normalised sources of every Triton function of the kernels, by name."""
    from triton.runtime.jit import JITFunction

    from ablate.kernels import _triton as tiling
    from ablate.kernels.neighborhood_attention import triton as attention
    from ablate.kernels.neighborhood_sums import triton as sums
    from ablate.kernels.slide_attention import triton as slide

    found = {}
    for package in (tiling, attention, slide, sums):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, JITFunction):
                    found[name] = _normalised(value.src)
    return found


def _normalised(source: str) -> str:
    """Return the code without comments, docstrings and layout."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _tool(name: str) -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)
