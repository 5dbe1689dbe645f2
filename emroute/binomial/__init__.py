"""Mixtures of binomials."""

from emroute.binomial.complete import expected_log_likelihood, fit_complete
from emroute.binomial.mixture import BinomialMixture, fit

__all__ = ["BinomialMixture", "expected_log_likelihood", "fit", "fit_complete"]
