"""From Hydra's configuration to a checked request.

`catalogue` registers operators with Hydra, `planning` composes the runs of a sweep, `structure` checks which
groups there are, `infra` and `study` read and check these two groups, `request` is one requested run, and
`check` asks every part of a run whether it can exist. `explanation` rewrites Hydra's errors. Light to import,
except for `catalogue`, which imports the operators and with them torch; `check` imports torch when it is
called. Used by `execution`, `launch`, `cli` and `bench`. Start reading in `request`.
"""
