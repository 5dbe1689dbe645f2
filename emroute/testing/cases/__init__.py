"""A small case for each public function of the library: what ``python -m emroute check`` runs.

`OPERATIONS` come first, so that a broken one is named before what rests on it; `ALGORITHMS` follow. To add a public
function to the library, add a case to one of the two.
"""

from emroute.testing.cases.algorithms import ALGORITHMS as _FITS_AND_ROUTINGS
from emroute.testing.cases.case import Case
from emroute.testing.cases.estimators import ESTIMATORS
from emroute.testing.cases.operations import OPERATIONS

__all__ = ["ALGORITHMS", "OPERATIONS", "Case"]

ALGORITHMS = (*_FITS_AND_ROUTINGS, *ESTIMATORS)
"""What rests on the operations."""
