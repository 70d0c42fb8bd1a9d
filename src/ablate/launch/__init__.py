"""From the requested runs to processes that compute them.

A sweep arrives at Hydra's launcher and becomes a submission: every run checked, frozen and listed in the
study's manifest. What is not finished is then started inline, in worker processes (`local`) or in SLURM
jobs (`slurm`), and the outcomes are summed up. Light to import. `studies` and `cli` may import this.
"""
