"""`hydra/sweeper=optuna`: a search of hyper-parameters by Optuna's samplers.

`space` reads the parameters and their conditions from Hydra's sweep syntax; `sweeper` draws trials, has any
of the launchers train them as runs of one study, and reports their results to Optuna. Start reading in
`sweeper`.
"""
