"""Storage on disk: files written atomically, a run's folder, a study's manifest.

`files` writes files whole or not at all, `folder` names and reads a run's files, `manifest` lists
the runs of a study. Imports no torch: training writes through it, runs and results read through
it, and nothing else of ablate but `errors` is imported here. Start reading in `folder`.
"""
