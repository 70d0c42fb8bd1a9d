"""Program of a job, `python -m ablate.launch.slurm RECORD FIRST`: see `ablate.launch.slurm.job`.

A signal would end a process that is still importing, and with it the job: signals wait until it is ready.
"""

from ablate.execution.interruption import held_back

with held_back():
    from ablate.launch.slurm import job

    job.main()
