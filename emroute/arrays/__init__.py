"""What the Array API standard lacks, by subject; `emroute.array` has most of it under one name."""

from emroute.arrays import creation, diagonal, distances, functions, tracing, trees

__all__ = ["creation", "diagonal", "distances", "functions", "tracing", "trees"]
