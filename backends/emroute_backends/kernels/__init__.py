"""Fused forms of functions that `emroute.arrays.kernels.kernel` marks, compiled by numba, for arrays of the host."""
