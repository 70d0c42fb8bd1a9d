"""Runs as SLURM jobs: several packed into one, arrays of them, on machines that are taken away.

`launch` hands a submission in and writes down as which jobs; `job` is what a job executes; `client` asks
the cluster and tells it; `queue` says which runs are in jobs that live; `snapshot` keeps the code as it was
at submission. No torch is imported here, and nothing executable is read from the folder of runs. Start
reading in `launch`.
"""
