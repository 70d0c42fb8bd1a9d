"""The tables of a study, each as Markdown, LaTeX (booktabs), CSV and rows of the page.

`table` says what a table is and how it is written; the other files are named after what they list.
"""

from ablate.results.tables.allpairs import all_pairs
from ablate.results.tables.beyond import over_places
from ablate.results.tables.budgets import front, matched, reached, speed
from ablate.results.tables.classes import by_class
from ablate.results.tables.components import components
from ablate.results.tables.conditions import details, footnote, short_table, study_table
from ablate.results.tables.factors import effects, interactions, variance
from ablate.results.tables.images import on_images
from ablate.results.tables.ranks import ranks
from ablate.results.tables.table import Cell, Table, escape_latex
from ablate.results.tables.walks import roadmap

__all__ = [
    "Cell",
    "Table",
    "all_pairs",
    "by_class",
    "components",
    "details",
    "effects",
    "escape_latex",
    "footnote",
    "front",
    "interactions",
    "matched",
    "on_images",
    "over_places",
    "ranks",
    "reached",
    "roadmap",
    "short_table",
    "speed",
    "study_table",
    "variance",
]
