"""A small case for each public function of the library: what ``python -m emroute check`` runs.

`OPERATIONS` come first, so that a broken one is named before what rests on it; `ALGORITHMS` follow. To add a public
function to the library, add a case to one of the two.
"""

from emroute.testing.cases.algorithms import ALGORITHMS
from emroute.testing.cases.case import Case
from emroute.testing.cases.operations import OPERATIONS

__all__ = ["ALGORITHMS", "OPERATIONS", "Case"]
