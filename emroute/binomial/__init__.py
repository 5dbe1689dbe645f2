"""Mixtures of binomials."""

from emroute.binomial.complete import expected_log_likelihood, fit_complete
from emroute.binomial.mixture import Binomial, BinomialMixture, Params, fit

__all__ = ["Binomial", "BinomialMixture", "Params", "expected_log_likelihood", "fit", "fit_complete"]
