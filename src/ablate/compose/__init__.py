"""From a configuration to a run folder: identity, claim, submission, status.

`planning` composes a sweep, `identity` computes a run's signature, `submit` checks and freezes runs,
`execute` claims a folder and trains in it, `together` has several processes train one run, `launchers`
decides where that happens (`local` and `worker` for processes on this machine, `slurm` for jobs), `verbs`
has what is done to a study that exists. Light to import; `training` only inside functions. Used by
`ablate.cli` and by Hydra's launchers; start reading in `submit`.
"""
