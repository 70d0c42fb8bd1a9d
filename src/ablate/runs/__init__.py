"""From a configuration to a run folder: identity, claim, submission, status.

`identity` computes a run's signature, `submit` checks and freezes runs, `execute` claims a folder
and trains in it, `launchers` decides where that happens (`local` and `worker` for processes on
this machine), `overview` says where runs stand. Light to import; `training` only inside
functions. Used by `ablate.cli` and by Hydra's launchers; start reading in `submit`.
"""
