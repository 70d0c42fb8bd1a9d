"""Shared parts of the Triton kernels: tiles of maps, and launches.

Import it only for a CUDA tensor, or to compile: macOS has no Triton. Each kernel is one module in the
folder `triton` of its operation, with a `launch_…` function that returns what would be launched. Launches
also take tensors on the meta device: `ablate.bench.aot` compiles them where there is no GPU. `tiles` and
`matrix` choose the form of a kernel and the size of its tiles, `factors` loads static factors.
"""
