"""`hydra/launcher=local`: several runs at a time in worker processes of this machine.

`launch` decides how many workers there are, `pool` serves them from a common queue, and `display` shows
what they are doing. A job of SLURM uses the same pool. Start reading in `launch`.
"""
