"""Functions that the Array API standard lacks, by subject. `emroute.array` exports most of them."""

from emroute.arrays import creation, diagonal, distances, functions, tracing, trees

__all__ = ["creation", "diagonal", "distances", "functions", "tracing", "trees"]
