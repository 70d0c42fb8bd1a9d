"""The figures of a study. Every function returns a figure; `save` writes it as SVG and PNG.

Figures are drawn without pyplot and without a clock, so that drawing again gives the same bytes.
`style` says how things look, `canvas` is what all share, `placement` keeps labels apart; the other
files are named after what they show. Imports neither torch nor timm.
"""

from ablate.results.figures.canvas import save
from ablate.results.figures.classes import by_class
from ablate.results.figures.confidence import confidence_curves
from ablate.results.figures.cost import accuracy_against_macs
from ablate.results.figures.differences import forest
from ablate.results.figures.exchanged import exchanged
from ablate.results.figures.factors import heat_map, main_effects
from ablate.results.figures.learning import all_curves, learning_curves
from ablate.results.figures.maps import panels
from ablate.results.figures.pairs import slopes
from ablate.results.figures.places import places
from ablate.results.figures.predictions import predictions
from ablate.results.figures.ranks import critical_difference
from ablate.results.figures.seeds import seed_noise
from ablate.results.figures.walk import roadmap

__all__ = [
    "accuracy_against_macs",
    "all_curves",
    "by_class",
    "confidence_curves",
    "critical_difference",
    "exchanged",
    "forest",
    "heat_map",
    "learning_curves",
    "main_effects",
    "panels",
    "places",
    "predictions",
    "roadmap",
    "save",
    "seed_noise",
    "slopes",
]
