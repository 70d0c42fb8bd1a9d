"""Shared parts of the loops that Numba compiles for the CPU.

`taps` has tables of which positions meet along an axis, `simd` gives loops a vector type that stays in
registers, `run` compiles a loop and calls it on as many threads as PyTorch uses. The loops are in the folder
`numba` of each operation.
"""
