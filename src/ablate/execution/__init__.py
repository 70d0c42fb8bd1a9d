"""One run in its folder: claim it, train it, record how it ended; the processes that compute it together.

`execute` trains one run; `worker` does so for a launcher, one folder after the other. `claim` admits one
process at a time to a folder, `status` and `outcome` are how a run stands and ended, `interruption` turns
signals into a stop with a checkpoint, `place`, `process_group`, `follower` and `series` are the several
processes of a run, `tracking` logs to W&B. Light to import: torch is imported by the functions that train.
`launch`, `studies`, `bench` and `cli` may import this; start reading in `execute`.
"""
