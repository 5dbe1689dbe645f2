"""Pictures of data, fits and their traces, drawn with matplotlib (``pip install 'emroute[plot]'``).

Every function takes arrays of any library, draws on a figure of its own and returns it: nothing is shown, and
pyplot's global state is left alone. Save with ``figure.savefig(path)``.
"""

from emroute.plot.fits import criteria, trace
from emroute.plot.rows import classification, density, pairs, uncertainty

__all__ = ["classification", "criteria", "density", "pairs", "trace", "uncertainty"]
