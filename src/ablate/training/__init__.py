"""The training loop on timm's optimizer, schedule, mixup and EMA.

`loop` trains, chooses the checkpoint that is best on validation and tests it once; `recipe` reads
what a recipe says, `checkpoint` saves and restores, `seeding` makes every epoch a function of seed
and number, `distributed` makes several processes one, `progress` shows what happens. Builds on `tasks`
and `data`; `execution.execute` trains a run with it, `compose.check`, `studies.look` and `bench` use parts.
Start reading in `loop.Training.run`.
"""
