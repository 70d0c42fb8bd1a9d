"""From run folders to a table, its statistics, figures and a page.

Reads what lies on disk and imports neither torch nor timm; only `ablate.cli` imports it.
Start reading in `report`, which goes through the rooms in order: `collect` (a tidy row a run),
`conditions` (what a study compares with what), `comparisons` (paired differences by seed, on
the plain `statistics` of arrays), `tables` and `figures`.
"""
