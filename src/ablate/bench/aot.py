"""What the Triton kernels need of a GPU, from compiling them ahead of time where there is none.

Registers and shared memory bound how many programs a multiprocessor runs at once; a stack or local
memory means that registers were spilled. All published networks come down to a few dozen compiled
kernels, because the size of a map and the number of heads are not part of one.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablate.errors import UserError
from ablate.ops.kernels.geometry import offsets_per_axis, strided
from ablate.store.files import write_text

FACTORS = ("multiply", "add")
OPTIONAL = (*FACTORS, "axial")  # operands without which a kernel is another
GOLDEN = Path("tests/kernels/aot.json")
CAPABILITIES = (80, 90, 100)  # A100, H100 and H200, B200
DTYPES = (torch.float32, torch.bfloat16)
BATCH = 64
WARP = 32  # threads
TENSOR_MEMORY = 512  # columns, of a multiprocessor of compute capability 10; Triton makes a trap of more
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
}


@dataclass(frozen=True)
class Shape:
    """One operator of a published network, on maps of `size` × `size`."""

    name: str
    size: int
    channels: int
    heads: int
    kernel: int
    border: str = "zero"
    stride: int = 1
    attention: bool = False  # also fused, where one kernel does it
    factors: tuple[str, ...] = ()  # which static factors, of FACTORS
    axial: bool = False  # whether attention adds a row's and a column's term
    mixed: bool = False  # attention over mixed neighbours, and nothing else


@dataclass(frozen=True)
class Resources:
    """Of one thread (registers, stack, local: bytes) and one program (shared: bytes; warps)."""

    registers: int
    stack: int
    local: int
    shared: int
    warps: int

    @property
    def spills(self) -> bool:
        """Whether a thread keeps anything outside its registers."""
        return self.stack + self.local > 0


def shapes() -> list[Shape]:
    """The operators of Swin's hosts (T and S, B), ELSA and slide among them, I-D-DWNet, RedNet, DDF, SASA."""
    found = []
    for model, dim in (("Swin-T", 96), ("Swin-B", 128)):
        for stage in range(4):
            size, channels, heads = 56 >> stage, dim << stage, dim // 32 << stage
            name = f"{model} stage {stage + 1}"
            found += [Shape(f"{name} K={k}", size, channels, heads, k, attention=True) for k in (3, 5, 7)]
            found.append(Shape(f"{name} inside", size, channels, heads, 7, "inside", attention=True))
            found.append(Shape(f"{name} heads=C", size, channels, channels, 7))
            found.append(Shape(f"I-D-DW{name[4:]}", size, channels, 32, 7))
            elsa = f"ELSA-{name}"
            found += [Shape(f"{elsa} K={k}", size, channels, heads, k, factors=FACTORS) for k in (5, 7)]
            found.append(Shape(f"{elsa} inside", size, channels, heads, 7, "inside", factors=FACTORS))
            found += [Shape(f"Slide-{name} K={k}", size, channels, heads, k, mixed=True) for k in (3, 5)]
    for stage in range(4):
        size, channels = 56 >> stage, 64 << stage
        found.append(Shape(f"RedNet stage {stage + 1}", size, channels, channels // 16, 7))
        found.append(Shape(f"DDF-ResNet stage {stage + 1}", size, channels, 1, 3, factors=("multiply",)))
        sasa = Shape(f"SASA-ResNet stage {stage + 1}", size, channels, 8, 7, attention=True)
        found.append(replace(sasa, axial=True))
        if stage:
            found.append(
                Shape(f"RedNet stage {stage + 1} strided", 2 * size, channels, channels // 16, 7, stride=2)
            )
            strided_ddf = Shape(f"DDF-ResNet stage {stage + 1} strided", 2 * size, channels, 1, 3, stride=2)
            found.append(replace(strided_ddf, factors=("multiply",)))
    found.append(Shape("DDF 2048 channels", 7, 2048, 1, 3, factors=("multiply",)))
    found += [Shape(f"DDF added, {channels} channels", 14, channels, 1, 3) for channels in (64, 2048)]
    return found


def launches(shape: Shape, dtype: torch.dtype) -> Iterator[Any]:
    """The calls of the sums and of the attentions at one shape, on tensors without memory."""
    from ablate.ops.kernels.attention import WIDEST
    from ablate.ops.kernels.sums import cuda as sums

    def empty(*size: int) -> Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    out = strided(shape.size, shape.stride)
    values = empty(BATCH, shape.size, shape.size, shape.channels)
    if shape.mixed:
        yield from _mixed_launches(values, shape)
        return
    outputs = empty(BATCH, out, out, shape.channels)
    filters = empty(BATCH, out, out, shape.heads, shape.kernel**2)
    table = empty(BATCH, shape.channels, offsets_per_axis(shape.kernel, shape.border) ** 2)
    multiply, add = (table if name in shape.factors else None for name in FACTORS)
    neighborhood = (shape.kernel, 1, shape.border, shape.stride)
    yield sums.launch_aggregate(values, filters, multiply, add, *neighborhood)[0]
    yield sums.launch_scores(outputs, values, multiply, None, None, shape.heads, *neighborhood)[0]
    yield sums.launch_spread(outputs, filters, multiply, add, shape.size, shape.size, *neighborhood)[0]
    if shape.attention and not shape.axial:  # attention that is not plain softmax: other norms, ghost head
        bias = empty(shape.heads, offsets_per_axis(shape.kernel, shape.border) ** 2)
        for key_position in (None, table[:1]):
            given = values, values, None, key_position, bias
            yield sums.launch_scores(*given, shape.heads, *neighborhood)[0]
    if shape.factors:
        yield sums.launch_correlate(outputs, values, filters, *neighborhood)[0]
    if shape.attention and shape.channels // shape.heads <= WIDEST[dtype]:
        yield from _attention_launches(values, shape)


def _attention_launches(maps: Tensor, shape: Shape) -> Iterator[Any]:
    from ablate.ops.kernels.attention import cuda as attention

    offsets, sliding = offsets_per_axis(shape.kernel, shape.border), (shape.kernel, 1, shape.border)
    bias = torch.empty(shape.heads, offsets**2, device="meta")
    axial = maps.new_empty(*maps.shape[:3], shape.heads, 2 * offsets) if shape.axial else None
    given = maps, maps, maps, bias, axial
    forward, out, rows = attention.launch_attention(*given, *sliding)
    yield forward
    queries, _, product, _ = attention.launch_query_gradient(maps, *given, out, rows, *sliding)
    yield queries
    for launch in (attention.launch_key_gradients, attention.launch_bias_gradient):
        yield launch(maps, *given, rows, product, *sliding)[0]


def _mixed_launches(maps: Tensor, shape: Shape) -> Iterator[Any]:
    from ablate.ops.kernels.mixed.cuda import filters, forward, keys, positions, queries

    width, taps = shape.channels // shape.heads, shape.kernel**2
    static = maps.new_empty(width, taps, taps), maps.new_empty(width, taps), maps.new_empty(shape.heads, taps)
    mixture = positions.Mixture.of(*static, shape.kernel, maps.dtype)
    yield forward.launch_attention(maps, maps, maps, mixture)[0]
    of_queries, numbers, _ = queries.launch_query_gradient(maps, maps, maps, maps, mixture, maps)
    yield of_queries
    yield keys.launch_key_gradients(maps, maps, mixture, numbers, maps, maps)
    yield filters.launch_filter_gradient(maps, maps, maps, maps, mixture, numbers)[0]


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
    """What distinguishes one compiled kernel from another, in words."""
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
    return Resources(used["REG"], used["STACK"], used["LOCAL"], compiled.metadata.shared, launch.warps)


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
    return triton.compile(source, target=target, options=launch.options())


def golden(path: Path = GOLDEN) -> tuple[str, dict[str, Resources]]:
    """The version of Triton that the committed figures are of, and the figures.

    Raises:
        UserError: no such file, or a damaged one.
    """
    try:
        read = json.loads(path.read_text())
        return read["triton"], {name: Resources(*used) for name, used in read["kernels"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read the golden figures in {path}: {error}") from error


def write_golden(path: Path = GOLDEN) -> dict[str, Resources]:
    """Compile everything and commit to its figures."""
    import triton

    found = resources()
    names_of_fields = [field.name for field in fields(Resources)]
    kernels = ",\n".join(f"  {json.dumps(name)}: {json.dumps(astuple(used))}" for name, used in found.items())
    head = f'{{"triton": "{triton.__version__}", "fields": {json.dumps(names_of_fields)}, "kernels": {{\n'
    write_text(path, f"{head}{kernels}\n}}}}\n")
    return found


def _tool(name: str) -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)
