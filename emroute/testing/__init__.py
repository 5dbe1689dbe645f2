"""Comparison of functions across array libraries, for the tests of emroute and for your own functions."""

from emroute.testing import strategies
from emroute.testing.equivalence import assert_equivalent
from emroute.testing.place import Place, places

__all__ = ["Place", "assert_equivalent", "places", "strategies"]
