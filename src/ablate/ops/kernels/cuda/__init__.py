"""The sums over sliding neighbourhoods as Triton kernels: `sums` is what others call.

Import `sums` only when a CUDA tensor has arrived: macOS has no Triton. Each sum has two forms,
*taps* for every case and *matrix* for tensor cores (`tiles` and `matrix` say which and how large);
each form is one module with its kernel and a `launch_…` function that says what would be launched.
Launches also take tensors on the meta device: `ablate.bench.aot` compiles them where there is no GPU.
"""
