from ablate.api import Study as Study
from ablate.api import runs as runs
from ablate.api import train as train

__version__: str
