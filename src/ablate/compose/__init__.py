"""From Hydra's configuration to a checked request.

`catalogue` registers operators with Hydra, `planning` composes the runs of a sweep, `structure`, `infra` and
`study` check the parts of a configuration that no other package reads, `request` is one requested run, and
`check` asks every part of a run whether it can exist. `explanation` rewrites Hydra's errors. Light to import:
torch is imported within `check`. Used by `execution`, `launch`, `studies`, `cli` and `bench`. Start reading
in `request`.
"""
