"""Shared parts of the loops that Numba compiles for the CPU.

`walks` says which positions meet along an axis, `simd` gives loops a vector type that stays in
registers, `run` compiles a loop and calls it on as many threads as PyTorch uses. The loops are in
`sums.cpu` and `attention.cpu`.
"""
