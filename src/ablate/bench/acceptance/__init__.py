"""`ablate bench acceptance`: check and measure the CUDA kernels on one card in eight steps and eight minutes.

`steps` lists them with their limits; `runner` runs them and resumes where an earlier run was cut off;
`attempt` gives each a process of its own, `worker`, whose `records` are written at once. The other modules
are one step each; `inputs` draws their tensors and `archive` writes their files. `page` writes the record,
`compare` sets two of them side by side. On a CPU the same steps run at toy size, the Triton kernels in
Triton's interpreter, so that a CPU test covers the same code. Used by the command line only. Start reading
in `steps`.
"""
