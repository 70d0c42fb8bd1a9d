"""Results: from run folders, or a committed record, to tables, statistics, figures and a report page.

Reads what lies on disk and imports neither torch nor timm; only the command line and the verbs under
`ablate.studies` import it. Start reading in `report`, which goes through the rooms in order: `collect`
(a tidy row a run), `conditions` (what a study compares with what), `evidence` (every analysis that a
design allows: `comparisons` with the baseline, `factorial`, `paths`, `costs`, `curves`, on the plain
`statistics` of arrays), then `tables/` and `figures/`. `record` does the same from experiments/.
"""
