"""From a configuration to a run folder: identity, claim, submission, status.

`folder` and `manifest` read what lies on disk and import no torch: `ablate.results` and the
light verbs use them. `identity` computes a run's signature, `submit` plans and freezes runs,
`execute` claims a folder and trains in it, `launchers` decides where that happens.
Used by `ablate.cli` and by the Hydra launchers; start reading in `folder`.
"""
