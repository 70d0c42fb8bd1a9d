"""One run in its folder: claim it, train it, record how it ended; the processes that compute it together.

`execute` runs one folder in this process, and `worker` serves several folders, one after the other, for a
launcher. `claim` lets one process at a time into a folder, `interruption` turns signals into a stop with a
checkpoint, `process_group` and `follower` are the several processes of one run, and `tracking` logs to W&B.
Light to import: torch is imported by the functions that train. `launch`, `studies` and `cli` may import
this; start reading in `execute`.
"""
