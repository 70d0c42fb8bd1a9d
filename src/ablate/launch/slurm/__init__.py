"""Runs as SLURM jobs: several runs per job, jobs in arrays, on nodes that may fail or be preempted.

`launch` submits what is ready and may wait for it; `jobs` packs runs into job arrays and records their
numbers; `job` is the program of a job; `client` runs SLURM's commands; `queue` finds the runs that are in
living jobs; `snapshot` copies the code at submission. No torch is imported here, and nothing executable is
read from the folder of runs. Start reading in `launch`.
"""
