"""From requested runs to the processes that compute them, and to the summary of their outcomes.

Hydra passes a sweep to `hydra_launcher`, which turns it into requests; `study` submits, starts and sums up.
`submit` checks and freezes runs (`freezing`) and adds them to the study's manifest (`plan`, `growth`);
`resubmit` is its counterpart for `retry`. `inline`, `local` and `slurm` are the launchers, `search` is the
sweeper for hyper-parameters, `summary` prints the end. Light to import. `studies` and `cli` may import this;
start reading in `study`.
"""
