"""`ablate bench acceptance`: eight steps that show what the GPU half does on one card, in eight minutes.

`steps` lists them with their limits; `runner` runs each in a process of its own, keeps at once what it has
measured and resumes where an earlier run was cut off; `worker` is that process; the other modules are one
step each. `page` writes the record, `compare` sets two of them side by side. On a CPU the same steps run at
toy size, the Triton kernels in Triton's interpreter, so that nothing is new on the day of the card. Used by
the command line only. Start reading in `steps`.
"""
