"""Benchmarks: speed and memory of kernels, operators and networks, and the counts of networks.

`kernels`, `ops` and `networks` put what is timed side by side; `timing`, `ceiling`, `memory` and
`agreement` measure it, `report` shows and keeps it, `unfold` and `library` are what they are compared with.
`models` counts parameters and multiply-accumulates of every named network; `aot` compiles the Triton
kernels where there is no GPU, `resources` shows what they need. Used by the command line only. Start
reading in `kernels.lines`.
"""
