"""Results: from run folders, or a committed record, to tables, statistics, figures and a report page.

Reads what is on disk and imports neither torch nor timm. Used by `cli`, by verbs under `studies`, by
`launch.growth` (which checks a study's design as the report would), `bench.report` and
`bench.acceptance.page`. Start reading in `report`, which calls the others in order: `collect` (one row per
run), `conditions` (what a study compares with what), `evidence` (every analysis that a design allows:
`comparisons` with the baseline, `factorial`, `paths`, `costs`, `curves`, on plain `statistics` of arrays),
then `tables/` and `figures/`. `record` does the same from experiments/.
"""
