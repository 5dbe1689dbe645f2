"""Whether a function gives the same on every array library: for this package's tests, and for functions of your own."""

from emroute.testing import strategies
from emroute.testing.equivalence import assert_equivalent
from emroute.testing.place import Place, places

__all__ = ["Place", "assert_equivalent", "places", "strategies"]
