"""Shared parts of the Triton kernels: tiles of maps, and launches.

Import only when a CUDA tensor has arrived, or its like is compiled: macOS has no Triton. Each kernel is
one module in `sums.cuda`, `attention.cuda` or `mixed.cuda`, with a `launch_…` function that says what
would be launched. Launches also take tensors on the meta device: `ablate.bench.aot` compiles them where
there is no GPU. `tiles` and `matrix` say which form of a kernel a shape takes and how large its tiles are,
`factors` how the taps form takes static factors.
"""
